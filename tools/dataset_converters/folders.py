"""Shared parts of the converters: command line, unpacking of archives, checks of files, and the report."""

import argparse
import hashlib
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

# Number of images per split that are opened without --full.
SAMPLE = 200
# Number of files or ids named per kind of problem.
MAX_NAMED = 10


class Report:
    """Problems, and a table of counts with one column per split.

    Attributes:
        columns: For each column, its counts by name.
        problems: Each problem with the affected files or ids.
    """

    def __init__(self) -> None:
        self.columns: dict[str, dict[str, int | str]] = {}
        self.problems: list[str] = []

    def refuse(self, where: Path, what: str, faulty: Sequence[object] | None = None) -> None:
        """Records a problem; with an empty list of affected items there is none."""
        if faulty is None:
            self.problems.append(f'{where}: {what}')
        elif faulty:
            named = ', '.join(map(str, faulty[:MAX_NAMED]))
            more = f' and {len(faulty) - MAX_NAMED} more' if len(faulty) > MAX_NAMED else ''
            self.problems.append(f'{where}: {len(faulty)} {what}: {named}{more}')

    def finish(self) -> None:
        """Prints the report.

        Raises:
            SystemExit: With status 1, if there are problems.
        """
        names = dict.fromkeys(name for counts in self.columns.values() for name in counts)
        width = max(map(len, names), default=0)
        if self.columns:
            print(' ' * width, *(f'{column:>12}' for column in self.columns))
        for name in names:
            print(f'{name:{width}}', *(f'{counts.get(name, "-"):>12}' for counts in self.columns.values()))
        print(f'{len(self.problems) or "no"} problems', *self.problems, sep='\n  ')
        if self.problems:
            raise SystemExit(1)


def build_parser(doc: str, data_root: str) -> argparse.ArgumentParser:
    """Builds the command line of a converter, given its docstring and the default of ``--data-root``."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--data-root', type=Path, default=Path(data_root), help='folder of the dataset; default: %(default)s'
    )
    return parser


def parse_args(doc: str, data_root: str) -> argparse.Namespace:
    """Parses the command line of a converter of downloaded archives."""
    parser = build_parser(doc, data_root)
    parser.add_argument('--archives', type=Path, help='folder of the downloaded archives, to unpack first')
    parser.add_argument('--full', action='store_true', help=f'open every image, not just up to {SAMPLE} of each split')
    return parser.parse_args()


def unpack(archive: Path, folder: str, target: Path) -> None:
    """Unpacks a folder of an archive to a temporary place, and moves it to the target when it is complete.

    Args:
        archive (Path): A zip file.
        folder (str): A folder in the archive.
        target (Path): Where the folder is moved. Not changed if it exists.

    Raises:
        SystemExit: If the archive is missing, truncated or corrupt, or has no such folder.
    """
    target = target.resolve()
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        print(f'{target} already exists; {archive.name} is not unpacked')
        return
    if not archive.is_file():
        raise SystemExit(f'{archive}, to be unpacked to {target}, does not exist')
    print(f'unpacking {archive} to {target}', flush=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f'.{target.name}-', dir=target.parent) as beside:
        try:
            with zipfile.ZipFile(archive) as opened:
                members = [name for name in opened.namelist() if name.startswith(f'{folder}/')]
                opened.extractall(beside, members)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise SystemExit(
                f'{archive} ({archive.stat().st_size} bytes) is truncated or not a zip file: {error}'
            ) from None
        if not members:
            raise SystemExit(f'{archive} has no folder {folder}, to be unpacked to {target}')
        Path(beside, folder).rename(target)


def list_files(folder: Path, suffix: str, report: Report) -> list[str]:
    """Lists the files of a folder, sorted by name; a missing or empty folder is reported."""
    if not folder.is_dir():
        report.refuse(folder, 'does not exist')
        return []
    names = sorted(entry.name for entry in os.scandir(folder) if entry.name.endswith(suffix) and entry.is_file())
    if not names:
        report.refuse(folder, f'holds no {suffix or "image"} files')
    return names


def read_image(path: Path) -> Image.Image:
    """Reads a complete image and rotates it by its EXIF data, as training does.

    Raises:
        ValueError: If it cannot be read.
    """
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image)
    except Exception as error:
        raise ValueError(f'cannot be read ({error})') from error


def inspect(
    folder: Path, items: Sequence[Any], look: Callable[[Any], None], full: bool, report: Report, name: Callable = str
) -> int:
    """Checks images, several at a time, and reports their problems.

    Args:
        folder (Path): Folder of the images.
        items (Sequence): Arguments of ``look``, one per image.
        look (Callable): Raises a ``ValueError`` that describes the problem of an image.
        full (bool): Whether to check all images instead of up to ``SAMPLE`` evenly spaced ones.
        report (Report): Collects the problems.
        name (Callable): Names an item. Defaults to ``str``.

    Returns:
        int: Number of images checked.
    """

    def judge(item: Any) -> str | None:
        try:
            look(item)
        except ValueError as error:
            return f'{name(item)} {error}'
        return None

    chosen = items if full else items[:: -(-len(items) // SAMPLE) or 1]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        report.refuse(folder, 'files have errors', [fault for fault in pool.map(judge, chosen) if fault])
    return len(chosen)


def find_copies(files: Iterable[Path]) -> dict[Path, Path]:
    """Finds files of the same content: each later one, with the first. Only files of equal size are read."""
    by_size: dict[int, list[Path]] = {}
    for path in files:
        by_size.setdefault(path.stat().st_size, []).append(path)
    copies, first = {}, {}
    for paths in by_size.values():
        for path in paths if len(paths) > 1 else ():
            original = first.setdefault(hashlib.sha256(path.read_bytes()).digest(), path)
            if original != path:
                copies[path] = original
    return copies


def measure(sizes: Sequence[tuple[int, int]]) -> dict[str, str]:
    """The range of widths and heights, as counts of the report."""
    sides = zip(*sizes, strict=True)
    return {name: f'{min(side)} to {max(side)}' for name, side in zip(('width', 'height'), sides, strict=False)}
