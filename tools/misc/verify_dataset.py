"""Looks for unreadable images by mmpretrain's own tool, which it tells how this project's configs load images."""

import runpy
from collections.abc import Sequence
from pathlib import Path

import mmpretrain
from mmpretrain import datasets

TOOL = Path(mmpretrain.__file__).parent / '.mim/tools/misc/verify_dataset.py'


def find_loading(pipeline: Sequence[dict], target: str) -> int:
    """Returns the index of the transform that loads images, or -1.

    Args:
        pipeline (Sequence[dict]): Settings of transforms.
        target (str): The name for which the tool looks.
    """
    names = (target, 'smmix_mm.LoadImage')
    return next((index for index, transform in enumerate(pipeline) if transform['type'] in names), -1)


def main() -> None:
    datasets.get_transform_idx = find_loading
    runpy.run_path(str(TOOL), run_name='__main__')


if __name__ == '__main__':
    main()
