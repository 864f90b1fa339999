"""Tiny folders in the layouts of COCO 2017 and ADE20K, with real JPEG, PNG and JSON files."""

import json
from pathlib import Path

import cv2
import numpy as np

# COCO's 80 ids have gaps.
COCO_IDS = [index for index in range(1, 91) if index not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
# Height and width; neither side a multiple of 32.
SIZES = [(61, 75), (50, 90), (75, 61), (64, 70)]


def draw_rectangles(rng: np.random.Generator, size: tuple[int, int], count: int) -> tuple[np.ndarray, list[list[int]]]:
    """A dark picture with bright rectangles, and each one's left, top, width and height."""
    image = rng.integers(0, 60, (*size, 3), dtype=np.uint8)
    boxes = []
    for _ in range(count):
        height, width = rng.integers(20, 40, 2).tolist()
        top, left = (int(rng.integers(0, side - extent)) for side, extent in zip(size, (height, width), strict=True))
        image[top : top + height, left : left + width] = rng.integers(100, 256, 3)
        boxes.append([left, top, width, height])
    return image, boxes


def write_coco(root: Path, counts: tuple[int, int] = (4, 2)) -> Path:
    """Writes train2017 and val2017: two objects per image, of which a crowd in the second and none in the third."""
    from mmdet.datasets import CocoDataset

    rng = np.random.default_rng(0)
    (root / 'annotations').mkdir(parents=True)
    names = CocoDataset.METAINFO['classes']
    categories = [dict(id=index, name=name) for index, name in zip(COCO_IDS, names, strict=True)]
    for split, count in zip(('train', 'val'), counts, strict=True):
        (root / f'{split}2017').mkdir()
        images, annotations = [], []
        for index in range(count):
            size = SIZES[index % len(SIZES)]
            picture, boxes = draw_rectangles(rng, size, 0 if index == 2 else 2)
            name = f'{index:012d}.jpg'
            cv2.imwrite(str(root / f'{split}2017' / name), picture)
            images.append(dict(id=index, file_name=name, height=size[0], width=size[1]))
            for number, (x, y, w, h) in enumerate(boxes):
                crowd = index == 1 and number == 1
                mask = np.zeros(size, dtype=int)
                mask[y : y + h, x : x + w] = 1
                annotations.append(
                    dict(
                        id=len(annotations) + 1,
                        image_id=index,
                        category_id=int(rng.choice(COCO_IDS)),
                        bbox=[x, y, w, h],
                        area=w * h,
                        iscrowd=int(crowd),
                        segmentation=run_lengths(mask) if crowd else [[x, y, x + w, y, x + w, y + h, x, y + h]],
                    )
                )
        path = root / f'annotations/instances_{split}2017.json'
        path.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    return root


def run_lengths(mask: np.ndarray) -> dict:
    """COCO's uncompressed RLE: lengths of runs, columns first, beginning with zeros."""
    flat = mask.T.ravel()
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *ends, flat.size]).tolist()
    return dict(size=list(mask.shape), counts=[0, *counts] if flat[0] else counts)


def write_ade20k(root: Path, counts: tuple[int, int] = (4, 2)) -> Path:
    """Writes training and validation: each picture a wall (1) with two rectangles, its first row of no class (0)."""
    rng = np.random.default_rng(1)
    for (split, short), count in zip((('training', 'train'), ('validation', 'val')), counts, strict=True):
        for kind in ('images', 'annotations'):
            (root / kind / split).mkdir(parents=True)
        for index in range(count):
            size = SIZES[index % len(SIZES)]
            picture, boxes = draw_rectangles(rng, size, 2)
            label_map = np.ones(size, dtype=np.uint8)
            for x, y, w, h in boxes:
                label_map[y : y + h, x : x + w] = rng.integers(2, 151)
            label_map[0] = 0
            name = f'ADE_{short}_{index:08d}'
            cv2.imwrite(str(root / f'images/{split}/{name}.jpg'), picture)
            cv2.imwrite(str(root / f'annotations/{split}/{name}.png'), label_map)
    return root
