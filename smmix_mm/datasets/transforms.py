"""Transforms that name faulty files, which OpenMMLab's own accept silently or fail on with obscure errors."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine import fileio
from PIL import Image

from smmix_mm.registry import TRANSFORMS

from .class_values import FILE, IGNORE_INDEX, Value, number_values, pack, read_mask, unpack
from .load_image import UnreadableImageError


@TRANSFORMS.register_module()
class LoadInstances(BaseTransform):
    """mmdet's ``LoadAnnotations`` for boxes and masks, with errors that name images which lack or do not fit them.

    It may come before or after resizing: the size in the annotation file, if there is one, is compared with the
    original size of the image. Crowd regions need no mask, since they are not trained on.

    Args:
        with_bbox (bool): Whether to load boxes. Defaults to True.
        with_mask (bool): Whether to load masks. Defaults to False.
        **kwargs: As in mmdet's ``LoadAnnotations``.

    Raises:
        ValueError: From :meth:`transform`, if an object has no mask, or if the size of the image is not that in its
            annotation.
    """

    def __init__(self, with_bbox: bool = True, with_mask: bool = False, **kwargs: Any) -> None:
        # Imported here, because classification does not need mmdet.
        from mmdet.datasets.transforms import LoadAnnotations

        self.with_mask = with_mask
        self.load = LoadAnnotations(with_bbox=with_bbox, with_mask=with_mask, **kwargs)

    def transform(self, results: dict) -> dict | None:
        self._check_size(results)
        if self.with_mask:
            results = {**results, 'instances': self._complete_masks(results)}
        return self.load(results)

    def _check_size(self, results: dict) -> None:
        """Compares sizes, since boxes and masks in pixels would be misplaced in an image of another size."""
        # Resizing does not change ori_shape. Images for prediction have no annotation.
        sides = results.get('height'), results.get('width')
        found = results.get('ori_shape')
        if found is None or None in sides or sides == tuple(found[:2]):
            return
        if sides == tuple(found[1::-1]):
            hint = (
                'The sides are swapped: the image was rotated by its EXIF orientation, but annotated without it. Set '
                "color_type='color_ignore_orientation' in LoadImage"
            )
        else:
            hint = 'It may have been resized after it was annotated, or be another image with the same name'
        raise ValueError(
            f'image {results.get("img_path")} (id {results.get("img_id")}) has {found[0]} x {found[1]} pixels (height '
            f'x width), but its annotation says {sides[0]} x {sides[1]}, so its boxes would be misplaced. {hint}'
        )

    def _complete_masks(self, results: dict) -> list[dict]:
        """Gives crowds without mask an empty polygon, which mmdet needs and ignores."""
        instances = results.get('instances', [])
        bare = [instance for instance in instances if not instance.get('mask') and not instance['ignore_flag']]
        if bare:
            raise ValueError(
                f'{len(bare)} of {len(instances)} objects of image {results.get("img_path")} (id '
                f'{results.get("img_id")}) have no mask, such as the one with box {bare[0].get("bbox")}; '
                'LoadInstances(with_mask=True) needs polygons or RLE in the segmentation of every non-crowd object'
            )
        return [instance if instance.get('mask') else {**instance, 'mask': []} for instance in instances]

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.load})'


@TRANSFORMS.register_module()
class LoadLabelMap(BaseTransform):
    """mmseg's ``LoadAnnotations``, with errors that name label maps which cannot be read or do not fit.

    It may come before or after resizing: the label map is compared with the original size of the image.

    Args:
        num_classes (int): Number of classes.
        reduce_zero_label (bool): Whether 0 is ignored and the other values move down by one, as set in the dataset.
            Defaults to False.
        values (Sequence[Value], optional): The value of each class in the files, integers of any size or colours
            ``(red, green, blue)``. They become the labels 0 to ``num_classes - 1``. Defaults to None, for files that
            hold labels.
        ignored (Sequence[Value]): Further values, which become 255. Only with ``values``. Defaults to none.
        **kwargs: As in mmseg's ``LoadAnnotations``.

    Raises:
        UnreadableImageError: An ``OSError``, from :meth:`transform`, if the file is missing, truncated or not an image.
        ValueError: From :meth:`transform`, if the label map has values beyond the classes or another size than the
            image, or if ``reduce_zero_label`` differs from the dataset's. From the constructor, if ``values`` are not
            one per class or combined with ``reduce_zero_label``, or ``ignored`` stands alone.
    """

    def __init__(
        self,
        num_classes: int,
        reduce_zero_label: bool = False,
        values: Sequence[Value] | None = None,
        ignored: Sequence[Value] = (),
        **kwargs: Any,
    ) -> None:
        # Imported here, because classification does not need mmseg.
        from mmseg.datasets.transforms import LoadAnnotations

        self.num_classes = num_classes
        self.reduce_zero_label = reduce_zero_label
        # mmseg takes reduce_zero_label from the results; the argument of that name is deprecated.
        self.load = LoadAnnotations(**kwargs)
        self.values = None
        if values is None:
            if ignored:
                raise ValueError(f'ignored={ignored} of LoadLabelMap needs values, those of the classes')
            return
        if len(values) != num_classes or reduce_zero_label:
            raise ValueError(
                f'LoadLabelMap needs one of values for each of num_classes, and reduce_zero_label=False, but got '
                f'{len(values)} values, num_classes={num_classes} and reduce_zero_label={reduce_zero_label}'
            )
        self.colours = not np.isscalar(values[0])
        self.values, self.ignored = pack(values, self.colours), pack(ignored, self.colours)

    def transform(self, results: dict) -> dict:
        if 'seg_map_path' not in results:
            # An image for prediction, not of a dataset.
            return results
        if results.setdefault('reduce_zero_label', self.reduce_zero_label) != self.reduce_zero_label:
            raise ValueError(
                f'reduce_zero_label of LoadLabelMap is {self.reduce_zero_label}, but that of the dataset is '
                f'{results["reduce_zero_label"]}; they have to agree'
            )
        path = results['seg_map_path']
        try:
            if self.values is None:
                highest, unknown = _find_lost_value(path), []
                results = self.load(results)
            else:
                highest, unknown = None, self._load_values(results)
        except (OSError, SyntaxError, ValueError) as error:
            raise UnreadableImageError(f'label map {path} cannot be read: {error}') from error
        if unknown:
            raise ValueError(
                f'label map {path} holds the values {[unpack(value, self.colours) for value in unknown[:10]]} '
                f'({len(unknown)} in all), which are neither values nor ignored in LoadLabelMap. Add them there, or to '
                f'{FILE} if the values are read from it'
            )
        self._check_size(results)
        self._check_values(results, highest)
        return results

    def _load_values(self, results: dict) -> list[int]:
        """Adds the labels to the results, and returns the values that stand for nothing."""
        content = fileio.get(results['seg_map_path'], backend_args=self.load.backend_args)
        mask = read_mask(BytesIO(content), self.colours)
        results['gt_seg_map'], unknown = number_values(mask, self.values, self.ignored)
        results.setdefault('seg_fields', []).append('gt_seg_map')
        return unknown

    def _check_size(self, results: dict) -> None:
        found = results['gt_seg_map'].shape
        # Resizing does not change ori_shape, and test pipelines load label maps after it.
        needed = results.get('ori_shape', found[:2])
        if found != tuple(needed):
            raise ValueError(
                f'label map {results["seg_map_path"]} has the shape {found}, but needs that of image '
                f'{results.get("img_path")}, {tuple(needed)}'
            )

    def _check_values(self, results: dict, highest: int | None) -> None:
        values = np.flatnonzero(np.bincount(results['gt_seg_map'].ravel(), minlength=IGNORE_INDEX + 1))
        first = int(self.reduce_zero_label)
        beyond = [int(value) + first for value in values if self.num_classes <= value != IGNORE_INDEX]
        if highest is not None:
            beyond.append(highest)
        if beyond:
            raise ValueError(
                f'label map {results["seg_map_path"]} holds the values {beyond[:10]}; with num_classes='
                f'{self.num_classes} and reduce_zero_label={self.reduce_zero_label} values have to be {first} to '
                f'{self.num_classes - 1 + first}, or {"0 or " if first else ""}{IGNORE_INDEX} (ignored)'
            )

    def __repr__(self) -> str:
        return f'{type(self).__name__}(num_classes={self.num_classes}, {self.load})'


def _find_lost_value(path: str) -> int | None:
    """The highest value of a label map, if it exceeds 8 bits, to which mmseg would cut it: 257 would become 1."""
    if '://' in path:
        return None
    with Image.open(path) as image:
        # For most label maps only the header is read; these modes are rare.
        highest = int(np.asarray(image).max()) if image.mode.startswith(('I', 'F')) else 0
    return highest if highest > IGNORE_INDEX else None
