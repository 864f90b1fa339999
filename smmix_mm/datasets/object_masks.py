"""Where the objects of pictures are, for analyses of classifiers."""

import contextlib
import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from mmcv.transforms import Compose, LoadImageFromFile
from torch import Tensor

from .class_lists import shorten
from .coco_files import find_coco_fault, find_empty_part


class CocoMasks:
    """Masks of the objects in the pictures of a COCO annotation file.

    Args:
        path (str | Path): The annotation file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a COCO file with annotations; it names the file and the fault.
    """

    def __init__(self, path: str | Path) -> None:
        from pycocotools.coco import COCO

        try:
            content = json.loads(Path(path).read_text())
        except ValueError as error:
            raise ValueError(f'{path} is not a JSON file: {error}') from error
        loader = 'val_dataloader'
        fault = find_empty_part(content, loader) or find_coco_fault(content, None, False, loader)
        if fault:
            raise ValueError(f'{path} {fault}')
        self.coco = COCO()
        self.coco.dataset = content
        # It prints its progress.
        with contextlib.redirect_stdout(io.StringIO()):
            self.coco.createIndex()
        counts = Counter(Path(image['file_name']).name for image in content['images'])
        repeated = sorted(name for name, count in counts.items() if count > 1)
        if repeated:
            raise ValueError(
                f'{path} has several images of the file name {shorten(repeated)}; pictures are found by their file '
                f'names, so give each image another one'
            )
        self.ids = {Path(image['file_name']).name: image['id'] for image in content['images']}

    def __call__(self, path: str | Path) -> np.ndarray | None:
        """The union of all objects, or of their boxes where the file has no outlines.

        Args:
            path (str | Path): A picture, found by its file name.

        Returns:
            np.ndarray | None: ``(H, W)`` float32, 1 on objects; None if the file lists no object in the picture.
        """
        objects = self.coco.imgToAnns[self.ids[Path(path).name]] if Path(path).name in self.ids else []
        masks = [self._mask(item) for item in objects]
        return np.maximum.reduce(masks) if masks else None

    def _mask(self, item: dict) -> np.ndarray:
        if item.get('segmentation'):
            return self.coco.annToMask(item).astype(np.float32)
        image = self.coco.imgs[item['image_id']]
        mask = np.zeros((image['height'], image['width']), np.float32)
        left, top, width, height = item['bbox']
        mask[round(top) : round(top + height), round(left) : round(left + width)] = 1
        return mask


def transform_mask(mask: np.ndarray, pipeline: Compose) -> Tensor:
    """Resizes and crops a mask as a pipeline does with its picture.

    Args:
        mask (np.ndarray): ``(H, W)``, from 0 to 1, of the picture as it is stored.
        pipeline (Compose): A test pipeline of mmpretrain, which changes the geometry in the same way each time.

    Returns:
        Tensor: ``(H', W')``, from 0 to 1 in steps of 1 / 255.
    """
    pixels = np.repeat((255 * mask).round().astype(np.uint8)[..., None], 3, axis=2)
    results = dict(img=pixels, img_shape=mask.shape, ori_shape=mask.shape)
    for transform in pipeline.transforms:
        if not isinstance(transform, LoadImageFromFile):
            results = transform(results)
    return torch.as_tensor(results['inputs'])[0].float() / 255
