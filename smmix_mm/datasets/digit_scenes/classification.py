"""Digit scenes for classification: a locally generated image folder."""

from pathlib import Path
from typing import Any

import numpy as np
from mmpretrain.datasets import CustomDataset

from smmix_mm.registry import DATASETS

from .generated_folder import on_main_process, write_image, write_once
from .scenes import NUM_CLASSES, SPLITS, draw_ink, draw_scene, load_split

DEFAULT_SIZES = {'train': 8000, 'val': 2000}

# Stored in every folder; a folder of another version is generated again.
VERSION = 1


@DATASETS.register_module()
class DigitScenes(CustomDataset):
    """Real handwritten digits over clutter, ten classes, 64 x 64 pixels.

    The pictures are PNG files in ``data_root/<split>/<class>/``. The main process generates them on first use; several
    machines have to share the folder. They are written to a temporary folder, which is renamed when it is complete.

    Args:
        data_root (str): Folder of the dataset. Defaults to ``'data/digit_scenes'``.
        split (str): ``'train'`` or ``'val'``; no original digit is in both. Defaults to ``'train'``.
        sizes (dict[str, int], optional): Number of pictures of each split. Defaults to 8 000 and 2 000.
        seed (int): Seed of the pictures; the same seed gives the same bytes. Defaults to 0.
        **kwargs: As in mmpretrain's ``CustomDataset``.

    Raises:
        ValueError: If the split is unknown.
        FileExistsError: If ``data_root`` holds anything else.
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
        on_main_process(make_digit_scenes, Path(data_root), {**DEFAULT_SIZES, **(sizes or {})}, seed)
        self.split = split
        self.seed = seed
        super().__init__(data_root=data_root, data_prefix=split, with_label=True, **kwargs)

    def draw_ink(self, path: str | Path) -> np.ndarray:
        """Draws the ink of a picture's digit again, without clutter.

        Args:
            path (str | Path): The picture, one of this dataset.

        Returns:
            np.ndarray: ``(64, 64)`` float32, from 0 to 1.
        """
        return draw_ink(load_split(self.split), [self.seed, SPLITS.index(self.split), int(Path(path).stem)])


def make_digit_scenes(root: Path, sizes: dict[str, int], seed: int) -> None:
    """Writes the dataset, unless it exists already.

    Args:
        root (Path): Folder of the dataset; replaced if it holds digit scenes of other settings.
        sizes (dict[str, int]): Number of pictures of ``'train'`` and ``'val'``.
        seed (int): Seed of the pictures.

    Raises:
        FileExistsError: If the folder holds anything else.
    """
    write_once(root, dict(version=VERSION, sizes=sizes, seed=seed), _write_split)


def _write_split(root: Path, split: str, size: int, seed: int) -> None:
    digits = load_split(split)
    for label in range(NUM_CLASSES):
        (root / split / str(label)).mkdir(parents=True)
    for index in range(size):
        image, label = draw_scene(digits, [seed, SPLITS.index(split), index])
        write_image(root / split / str(label) / f'{index:06d}.png', image)
