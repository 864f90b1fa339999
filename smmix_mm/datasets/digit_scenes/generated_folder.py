"""Writes folders of generated datasets once, and atomically."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.dist import barrier, is_main_process
from mmengine.logging import print_log

from smmix_mm.files import lock_file, write_whole

from .scenes import SPLITS

MANIFEST = 'manifest.json'


def on_main_process(write: Callable[..., None], *args: Any) -> None:
    """Calls ``write(*args)`` in one process; the others wait. Several machines have to share the folder."""
    if is_main_process():
        write(*args)
    barrier()


def write_once(root: Path, settings: dict[str, Any], write_split: Callable[[Path, str, int, int], None]) -> None:
    """Generates a dataset, unless it exists already with these settings.

    It is written to a temporary folder, which is renamed when it is complete.

    Args:
        root (Path): Folder of the dataset; replaced if it was made by this function with other settings.
        settings (dict[str, Any]): Settings that determine the content, including ``sizes`` by split and ``seed``;
            stored in ``manifest.json``.
        write_split (Callable): Takes a folder, a split, its size and the seed, and writes the split there.

    Raises:
        FileExistsError: If the folder holds anything else.
    """
    if _is_made(root, settings):
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    # Parallel runs may need the same data: the second one waits for the first.
    with (root.parent / f'.{root.name}.lock').open('w') as lock:
        lock_file(lock)
        if not _is_made(root, settings):
            _make(root, settings, write_split)


def _is_made(root: Path, settings: dict[str, Any]) -> bool:
    manifest = root / MANIFEST
    if manifest.is_file():
        return json.loads(manifest.read_text()) == settings
    if root.exists() and any(root.iterdir()):
        raise FileExistsError(f'{root} holds something other than digit scenes; set data_root to another folder')
    return False


def _make(root: Path, settings: dict[str, Any], write_split: Callable[[Path, str, int, int], None]) -> None:
    print_log(f'Generating digit scenes in {root}: {settings}', logger='current')

    def write(folder: Path) -> None:
        folder.mkdir()
        for split in SPLITS:
            write_split(folder, split, settings['sizes'][split], settings['seed'])
        (folder / MANIFEST).write_text(json.dumps(settings))

    # It can be generated again at any time: no need to sync each picture to disk.
    write_whole(root, write, sync=False)


def write_image(path: Path, image: np.ndarray) -> None:
    """Writes a picture, BGR or grey, in the format of its suffix.

    Raises:
        OSError: If it cannot be written.
    """
    if not cv2.imwrite(str(path), image):
        raise OSError(f'could not write {path}')
