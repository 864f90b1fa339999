"""The pictures that runs have left, as data URIs."""

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

FORMATS = {'.png', '.jpg', '.jpeg', '.webp'}
# The page stays within some megabytes.
MAX_OF_A_FOLDER = 8
MAX_FOLDERS = 12
MAX_SIDE = 1400
QUALITY = 85


@dataclass(frozen=True)
class Picture:
    """A picture that is embedded in the page.

    Attributes:
        name (str): Its file.
        uri (str): Its content.
        width (int): In pixels, as embedded.
        height (int): In pixels, as embedded.
    """

    name: str
    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Folder:
    """Some of the pictures in a folder.

    Attributes:
        name (str): Its path.
        count (int): How many pictures it holds.
        pictures (list[Picture]): Those that are shown.
    """

    name: str
    count: int
    pictures: list[Picture]


def gather_pictures(folders: Sequence[Path]) -> tuple[list[Folder], list[str]]:
    """Embeds the pictures below some folders, made smaller.

    Of many pictures in a folder some are taken in even distances, so that those of a training show all of it.

    Args:
        folders (Sequence[Path]): Work directories, or folders of them.

    Returns:
        tuple[list[Folder], list[str]]: Folders with pictures, those nearest to the top first, and what was left out.
    """
    found: dict[Path, list[Path]] = {}
    for path in dict.fromkeys(path for folder in folders for path in sorted(Path(folder).rglob('*'))):
        if path.suffix.lower() in FORMATS and path.is_file() and not path.name.startswith('.'):
            found.setdefault(path.parent, []).append(path)
    gallery, problems = [], []
    if len(found) > MAX_FOLDERS:
        problems.append(f'pictures of {MAX_FOLDERS} of {len(found)} folders are shown')
    for folder in sorted(found, key=lambda folder: len(folder.parts))[:MAX_FOLDERS]:
        shown = []
        for path in _thin_out(sorted(found[folder], key=_natural), MAX_OF_A_FOLDER):
            try:
                shown.append(_embed(path))
            except (OSError, ValueError, Image.DecompressionBombError) as error:
                problems.append(f'{path} cannot be read as a picture: {error}')
        if shown:
            gallery.append(Folder(str(folder), len(found[folder]), shown))
    return gallery, problems


def _embed(path: Path) -> Picture:
    with Image.open(path) as image:
        image = image.convert('RGBA' if 'A' in image.getbands() or 'transparency' in image.info else 'RGB')
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    content = io.BytesIO()
    image.save(content, 'WEBP', quality=QUALITY)
    uri = f'data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}'
    return Picture(path.name, uri, *image.size)


def _thin_out(paths: list[Path], count: int) -> list[Path]:
    if len(paths) <= count:
        return paths
    return [paths[round(index * (len(paths) - 1) / (count - 1))] for index in range(count)]


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sorts batch_2.png before batch_10.png."""
    return [(int(part), '') if part.isdigit() else (-1, part) for part in re.split(r'(\d+)', path.name)]
