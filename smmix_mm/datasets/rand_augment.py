"""RandAugment on densely stored images, with faster forms of three operations."""

from collections.abc import Callable

import cv2
import numpy as np
from mmpretrain.datasets.transforms import auto_augment as stock

from smmix_mm.registry import TRANSFORMS, find_scope_and_name

from .memory_layout import check_pixels, store_densely


@TRANSFORMS.register_module()
class RandAugment(stock.RandAugment):
    """mmpretrain's ``RandAugment`` in half of the time, with the same draws.

    Images that are stored as a mirrored view, as after a flip, are copied first: OpenCV would copy them in every
    operation. ``AutoContrast``, ``Equalize`` and ``Contrast`` are this package's, with the pixels of Pillow. mmcv's
    ``Contrast`` may differ from that by 1 of 255.

    Args:
        policies (str | list[dict]): The name of mmpretrain's policies, or a list of operations.
        *args: As in mmpretrain.
        **kwargs: As in mmpretrain.

    Raises:
        ValueError: If mmpretrain has no policies of that name; from :meth:`transform`, if the image is not of shape
            ``(H, W, 3)`` and dtype uint8.
    """

    def __init__(self, policies: str | list[dict], *args: object, **kwargs: object) -> None:
        if isinstance(policies, str):
            if policies not in stock.RANDAUG_POLICIES:
                raise ValueError(
                    f'policies of RandAugment has to be one of {[*stock.RANDAUG_POLICIES]} or a list of operations, '
                    f'but got {policies!r}'
                )
            policies = stock.RANDAUG_POLICIES[policies]
        super().__init__([{**policy, 'type': _pick_faster(policy)} for policy in policies], *args, **kwargs)

    def transform(self, results: dict) -> dict:
        check_pixels(results['img'], 'RandAugment')
        return super().transform({**results, 'img': store_densely(results['img'])})


@TRANSFORMS.register_module()
class AutoContrast(stock.AutoContrast):
    """mmpretrain's ``AutoContrast``: stretches the values of each channel of an image of 8 bits to 0 to 255."""

    def transform(self, results: dict) -> dict:
        if not self.random_disable():
            results['img'] = map_values(results['img'], stretch)
        return results


@TRANSFORMS.register_module()
class Equalize(stock.Equalize):
    """mmpretrain's ``Equalize``: equalizes the histogram of each channel of an image of 8 bits."""

    def transform(self, results: dict) -> dict:
        if not self.random_disable():
            results['img'] = map_values(results['img'], equalize)
        return results


@TRANSFORMS.register_module()
class Contrast(stock.Contrast):
    """mmpretrain's ``Contrast``: moves the values of an image of 8 bits away from its mean grey, or towards it."""

    def transform(self, results: dict) -> dict:
        if self.random_disable():
            return results
        magnitude = self.random_negative(self.random_magnitude() if self.magnitude is None else self.magnitude)
        grey = cv2.cvtColor(results['img'], cv2.COLOR_BGR2GRAY)
        mean = np.float32(int(cv2.mean(grey)[0] + 0.5))
        # In Pillow's order, and as there in float32.
        table = mean + np.float32(1 + magnitude) * (np.arange(256, dtype=np.float32) - mean)
        results['img'] = cv2.LUT(results['img'], np.clip(table, 0, 255).astype(np.uint8))
        return results


FASTER = {name: f'smmix_mm.{name}' for name in ('AutoContrast', 'Equalize', 'Contrast')}


def _pick_faster(policy: dict) -> str | type:
    scope, name = find_scope_and_name(policy)
    return FASTER.get(name, policy['type']) if scope in ('', 'mmpretrain') else policy['type']


def map_values(image: np.ndarray, make_table: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Replaces the values of each channel by those of a table that depends on their histogram.

    Args:
        image (np.ndarray): ``(H, W, 3)``, uint8.
        make_table (Callable): From the counts of the 256 values to the 256 values in their place.
    """
    histograms = (cv2.calcHist([image], [channel], None, [256], (0, 256)) for channel in range(3))
    tables = np.stack([make_table(counts[:, 0].astype(np.int64)) for counts in histograms], axis=-1)
    return cv2.LUT(image, tables[None].astype(np.uint8))


def stretch(counts: np.ndarray) -> np.ndarray:
    low, high = np.flatnonzero(counts)[[0, -1]]
    if low == high:
        return np.arange(256)
    scale = 255 / (high - low)
    return np.clip(np.arange(256) * scale - low * scale, 0, 255)


def equalize(counts: np.ndarray) -> np.ndarray:
    step = (counts.sum() - counts[np.flatnonzero(counts)[-1]]) // 255
    if not step:
        return np.arange(256)
    below = np.cumsum(counts) - counts
    return np.minimum((below + step // 2) // step, 255)
