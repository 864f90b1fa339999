"""Corruptions of test images, for data that has no corrupted version."""

import zlib

import cv2
import mmcv
import numpy as np
from mmcv.transforms import BaseTransform

from smmix_mm.registry import TRANSFORMS

# By severity, 1 to 5. ImageNet-C and CIFAR-10-C (arXiv 1903.12261) have values for one size of images each; these are
# for any size, and lie between the two: noise as a standard deviation with white as 1, blur as the standard deviation
# over the shorter side, contrast as the factor on what differs from the mean, occlusion as the part of the area.
STRENGTHS = {
    'noise': (0.04, 0.08, 0.12, 0.18, 0.26),
    'blur': (0.01, 0.015, 0.02, 0.025, 0.03),
    'contrast': (0.75, 0.5, 0.4, 0.3, 0.15),
    'occlusion': (0.1, 0.2, 0.3, 0.4, 0.5),
}


@TRANSFORMS.register_module()
class Corrupt(BaseTransform):
    """Corrupts an image, for tests of how much accuracy a model keeps.

    - ``'noise'``: adds Gaussian noise, independent of pixels and channels.
    - ``'blur'``: a Gaussian blur.
    - ``'contrast'``: lowers the contrast.
    - ``'occlusion'``: fills a rectangle at a random place, of the image's shape, with the image's mean colour.

    What is random is drawn from the pixels of the image and the corruption alone: every process, run and machine that
    decodes the image alike corrupts it alike, in any order. All severities share the draw: the noise is scaled, and the
    rectangles have their places in proportion. It is for test pipelines, directly after loading.

    Args:
        corruption (str): ``'noise'``, ``'blur'``, ``'contrast'`` or ``'occlusion'``.
        severity (int): 1 to 5. The strengths are in :data:`STRENGTHS`. Defaults to 3.

    Raises:
        ValueError: If the corruption is unknown, or the severity not from 1 to 5.
    """

    def __init__(self, corruption: str, severity: int = 3) -> None:
        if corruption not in STRENGTHS:
            raise ValueError(f'corruption of Corrupt has to be one of {tuple(STRENGTHS)}, but got {corruption!r}')
        if severity not in range(1, 6):
            raise ValueError(f'severity of Corrupt has to be 1, 2, 3, 4 or 5, but got {severity!r}')
        self.corruption = corruption
        self.severity = severity

    def transform(self, results: dict) -> dict:
        """Corrupts ``results['img']``, ``(H, W, 3)`` from 0 to 255."""
        image = results['img']
        stream = np.random.default_rng([zlib.crc32(image.tobytes()), list(STRENGTHS).index(self.corruption)])
        strength = STRENGTHS[self.corruption][self.severity - 1]
        results['img'] = CORRUPTIONS[self.corruption](image, strength, stream)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(corruption={self.corruption!r}, severity={self.severity})'


def add_noise(image: np.ndarray, strength: float, stream: np.random.Generator) -> np.ndarray:
    """Adds Gaussian noise of a standard deviation of ``255 * strength``."""
    noisy = image + 255 * strength * stream.standard_normal(image.shape, dtype=np.float32)
    return noisy.round().clip(0, 255).astype(image.dtype)


def blur(image: np.ndarray, strength: float, _: np.random.Generator) -> np.ndarray:
    """Blurs by a Gaussian of a standard deviation of ``strength`` times the shorter side."""
    return cv2.GaussianBlur(image, (0, 0), strength * min(image.shape[:2]))


def lower_contrast(image: np.ndarray, strength: float, _: np.random.Generator) -> np.ndarray:
    """Scales what differs from the mean grey of the image by ``strength``."""
    return mmcv.adjust_contrast(image, strength)


def occlude(image: np.ndarray, strength: float, stream: np.random.Generator) -> np.ndarray:
    """Fills a rectangle of about ``strength`` of the area, and of the image's shape, with the mean colour."""
    sides = [max(1, round(side * strength**0.5)) for side in image.shape[:2]]
    place = stream.random(2)
    top, left = (int(part * (whole - side + 1)) for part, whole, side in zip(place, image.shape, sides, strict=False))
    image = image.copy()
    image[top : top + sides[0], left : left + sides[1]] = image.mean(axis=(0, 1)).round()
    return image


CORRUPTIONS = {'noise': add_noise, 'blur': blur, 'contrast': lower_contrast, 'occlusion': occlude}
