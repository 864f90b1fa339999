"""The embedded dataset: an image folder of digit scenes, made on the machine that needs it."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import cv2
from mmengine.dist import barrier, is_main_process
from mmengine.logging import print_log
from mmpretrain.datasets import CustomDataset

from smmix_mm.registry import DATASETS

from .scenes import NUM_CLASSES, SPLITS, draw_scene, load_split

DEFAULT_SIZES = {'train': 8000, 'val': 2000}

MANIFEST = 'manifest.json'
# Written with every folder; another version is made anew.
VERSION = 1


@DATASETS.register_module()
class DigitScenes(CustomDataset):
    """Real handwritten digits over clutter, ten classes, 64 x 64 pixels.

    The pictures lie as PNG files in ``data_root/<split>/<class>/``. They are made on first use, by the main process
    alone (on several machines the folder has to be shared), beside the place that they take when all are there: nothing
    half-written is left behind.

    Args:
        data_root (str): Folder of the dataset. Defaults to ``'data/digit_scenes'``.
        split (str): ``'train'`` or ``'val'``; no original digit is in both. Defaults to ``'train'``.
        sizes (dict[str, int], optional): Number of pictures of each split. Defaults to 8 000 and 2 000.
        seed (int): Seed of the pictures; the same seed gives the same bytes. Defaults to 0.
        **kwargs: As in mmpretrain's ``CustomDataset``.

    Raises:
        ValueError: If the split is unknown.
        FileExistsError: If ``data_root`` holds something else.
    """

    METAINFO = {'classes': tuple(str(digit) for digit in range(NUM_CLASSES))}

    def __init__(
        self,
        data_root: str = 'data/digit_scenes',
        split: str = 'train',
        sizes: dict[str, int] | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f'split of DigitScenes has to be one of {SPLITS}, but got {split!r}')
        if is_main_process():
            make_digit_scenes(Path(data_root), {**DEFAULT_SIZES, **(sizes or {})}, seed)
        barrier()
        super().__init__(data_root=data_root, data_prefix=split, with_label=True, **kwargs)


def make_digit_scenes(root: Path, sizes: dict[str, int], seed: int) -> None:
    """Writes the dataset, unless it is there already.

    Args:
        root (Path): Folder of the dataset; replaced if it is a digit-scene folder of other settings.
        sizes (dict[str, int]): Number of pictures of ``'train'`` and ``'val'``.
        seed (int): Seed of the pictures.

    Raises:
        FileExistsError: If the folder holds something else.
    """
    wanted = dict(version=VERSION, sizes=sizes, seed=seed)
    manifest = root / MANIFEST
    if manifest.is_file():
        if json.loads(manifest.read_text()) == wanted:
            return
    elif root.exists() and any(root.iterdir()):
        raise FileExistsError(f'{root} holds something other than digit scenes; give DigitScenes another data_root')
    print_log(f'Making {sum(sizes.values())} digit scenes in {root}', logger='current')
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f'.{root.name}-', dir=root.parent) as folder:
        new = Path(folder, 'new')
        for split in SPLITS:
            _write_split(new / split, split, sizes[split], seed)
        (new / MANIFEST).write_text(json.dumps(wanted))
        if root.exists():
            shutil.move(root, Path(folder, 'old'))
        new.rename(root)


def _write_split(folder: Path, split: str, size: int, seed: int) -> None:
    digits = load_split(split)
    for label in range(NUM_CLASSES):
        (folder / str(label)).mkdir(parents=True)
    for index in range(size):
        image, label = draw_scene(digits, [seed, SPLITS.index(split), index])
        path = folder / str(label) / f'{index:06d}.png'
        if not cv2.imwrite(str(path), image):
            raise OSError(f'could not write {path}')
