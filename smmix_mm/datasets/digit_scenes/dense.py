"""Digit scenes for detection and segmentation, in the formats of COCO and ADE20K.

Both read the same pictures::

    data_root/
      images/{train,val}/000000.jpg
      annotations/instances_{train,val}.json    as COCO: polygons, crowds as run lengths
      annotations/{train,val}/000000.png        as ADE20K: 0 is ignored, 1 background, 2 to 11 the digits
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from smmix_mm.registry import DATASETS

from .dense_scenes import DenseScene, draw_dense_scene
from .generated_folder import on_main_process, write_image, write_once
from .polygons import mask_to_polygons
from .scenes import NUM_CLASSES, SPLITS, load_split

if TYPE_CHECKING:
    from mmdet.datasets import CocoDataset
    from mmseg.datasets import BaseSegDataset

DEFAULT_SIZES = {'train': 800, 'val': 200}
DIGITS = tuple(str(digit) for digit in range(NUM_CLASSES))
# Arbitrary distinct colours; background dark.
PALETTE = [
    (0, 0, 0), (230, 25, 75), (60, 180, 75), (255, 225, 25), (0, 130, 200), (245, 130, 48),
    (145, 30, 180), (70, 240, 240), (240, 50, 230), (210, 245, 60), (250, 190, 212),
]  # fmt: skip

# Values in label maps.
IGNORED, BACKGROUND, FIRST_DIGIT = 0, 1, 2
# Stored in every folder; a folder of another version is generated again.
VERSION = 1


# Functions, not subclasses: the library's own class reads the files, and is imported only when it is used.


@DATASETS.register_module(name='DigitScenesDetection')
def digit_scenes_detection(
    data_root: str = 'data/digit_scenes_dense',
    split: str = 'train',
    sizes: dict[str, int] | None = None,
    seed: int = 0,
    **kwargs: Any,
) -> 'CocoDataset':
    """Several digits over clutter with boxes and masks, ten classes, as mmdet's ``CocoDataset``.

    Generated on first use, like :class:`smmix_mm.datasets.DigitScenes`. A few pictures have no object, some a crowd.

    Args:
        data_root (str): Folder of the dataset. Defaults to ``'data/digit_scenes_dense'``.
        split (str): ``'train'`` or ``'val'``; no original digit is in both. Defaults to ``'train'``.
        sizes (dict[str, int], optional): Number of pictures of each split. Defaults to 800 and 200.
        seed (int): Seed of the pictures; the same seed gives the same bytes. Defaults to 0.
        **kwargs: As in ``CocoDataset``.

    Raises:
        ValueError: If the split is unknown.
        FileExistsError: If ``data_root`` holds something else.
    """
    from mmdet.datasets import CocoDataset

    _prepare(data_root, split, sizes, seed)
    return CocoDataset(
        data_root=data_root,
        ann_file=f'annotations/instances_{split}.json',
        data_prefix=dict(img=f'images/{split}/'),
        metainfo=dict(classes=DIGITS, palette=PALETTE[1:]),
        **kwargs,
    )


@DATASETS.register_module(name='DigitScenesSegmentation')
def digit_scenes_segmentation(
    data_root: str = 'data/digit_scenes_dense',
    split: str = 'train',
    sizes: dict[str, int] | None = None,
    seed: int = 0,
    **kwargs: Any,
) -> 'BaseSegDataset':
    """The pictures of :func:`digit_scenes_detection` with label maps, as mmseg's ``BaseSegDataset``.

    Eleven classes, the background first; crowds are ignored.

    Args:
        data_root (str): Folder of the dataset. Defaults to ``'data/digit_scenes_dense'``.
        split (str): ``'train'`` or ``'val'``. Defaults to ``'train'``.
        sizes (dict[str, int], optional): Number of pictures of each split. Defaults to 800 and 200.
        seed (int): Seed of the pictures. Defaults to 0.
        **kwargs: As in ``BaseSegDataset``.

    Raises:
        ValueError: If the split is unknown.
        FileExistsError: If ``data_root`` holds something else.
    """
    from mmseg.datasets import BaseSegDataset

    _prepare(data_root, split, sizes, seed)
    metainfo = dict(classes=('background', *DIGITS), palette=PALETTE)
    dataset = BaseSegDataset(
        data_root=data_root,
        data_prefix=dict(img_path=f'images/{split}', seg_map_path=f'annotations/{split}'),
        metainfo=metainfo,
        reduce_zero_label=True,
        **kwargs,
    )
    # mmseg's confusion_matrix.py reads the classes here.
    dataset.METAINFO = metainfo
    return dataset


def _prepare(data_root: str, split: str, sizes: dict[str, int] | None, seed: int) -> None:
    if split not in SPLITS:
        raise ValueError(f'split of the digit scenes has to be one of {SPLITS}, but got {split!r}')
    on_main_process(make_dense_digit_scenes, Path(data_root), {**DEFAULT_SIZES, **(sizes or {})}, seed)


def make_dense_digit_scenes(root: Path, sizes: dict[str, int], seed: int) -> None:
    """Writes the dataset, unless it exists already.

    Args:
        root (Path): Folder of the dataset; replaced if it holds digit scenes of other settings.
        sizes (dict[str, int]): Number of pictures of ``'train'`` and ``'val'``.
        seed (int): Seed of the pictures.

    Raises:
        FileExistsError: If the folder holds something else.
    """
    write_once(root, dict(version=VERSION, sizes=sizes, seed=seed), _write_split)


def _write_split(root: Path, split: str, size: int, seed: int) -> None:
    digits = load_split(split)
    pictures, label_maps = root / 'images' / split, root / 'annotations' / split
    pictures.mkdir(parents=True)
    label_maps.mkdir(parents=True)
    images, annotations = [], []
    for index in range(size):
        scene = draw_dense_scene(digits, [seed, SPLITS.index(split), index])
        write_image(pictures / f'{index:06d}.jpg', scene.image)
        write_image(label_maps / f'{index:06d}.png', to_label_map(scene))
        height, width = scene.image.shape[:2]
        images.append(dict(id=index, file_name=f'{index:06d}.jpg', width=width, height=height))
        for annotation in to_annotations(scene):
            # Ids start at 1, as in COCO: pycocotools treats 0 as no annotation.
            annotations.append(dict(id=len(annotations) + 1, image_id=index, **annotation))
    content = dict(
        images=images,
        annotations=annotations,
        categories=[dict(id=category, name=name) for category, name in enumerate(DIGITS, 1)],
    )
    (root / 'annotations' / f'instances_{split}.json').write_text(json.dumps(content))


def to_label_map(scene: DenseScene) -> np.ndarray:
    """Returns the classes of pixels in ADE20K's format, ``(H, W)`` uint8."""
    label_map = np.full(scene.image.shape[:2], BACKGROUND, np.uint8)
    if scene.crowd is not None:
        label_map[scene.crowd] = IGNORED
    for label, mask in zip(scene.labels, scene.masks, strict=True):
        label_map[mask] = FIRST_DIGIT + label
    return label_map


def to_annotations(scene: DenseScene) -> list[dict[str, Any]]:
    """Returns instances in COCO's format without ids: digits as polygons, the crowd as run lengths."""
    annotations = [
        dict(_measure(mask), category_id=label + 1, iscrowd=0, segmentation=mask_to_polygons(mask))
        for label, mask in zip(scene.labels, scene.masks, strict=True)
    ]
    if scene.crowd is not None and scene.crowd.any():
        annotations.append(
            dict(
                _measure(scene.crowd),
                category_id=scene.crowd_label + 1,
                iscrowd=1,
                segmentation=dict(size=list(scene.crowd.shape), counts=_run_lengths(scene.crowd)),
            )
        )
    return annotations


def _measure(mask: np.ndarray) -> dict[str, Any]:
    rows, cols = np.nonzero(mask)
    left, top = int(cols.min()), int(rows.min())
    return dict(bbox=[left, top, int(np.ptp(cols)) + 1, int(np.ptp(rows)) + 1], area=int(mask.sum()))


def _run_lengths(mask: np.ndarray) -> list[int]:
    """Lengths of alternating runs of 0 and 1 in column order, 0 first."""
    pixels = mask.ravel(order='F')
    changes = np.flatnonzero(np.diff(pixels)) + 1
    runs = np.diff([0, *changes, len(pixels)]).tolist()
    return [0, *runs] if pixels[0] else runs
