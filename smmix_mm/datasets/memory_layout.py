"""Which pixels the faster transforms take, and how they lie in memory."""

import cv2
import numpy as np


def check_pixels(image: np.ndarray, transform: str) -> None:
    """Refuses images that a faster transform of this package is not for.

    Args:
        image (np.ndarray): An image of a pipeline.
        transform (str): Name of the transform, here and in mmpretrain.

    Raises:
        ValueError: If it is not of shape ``(H, W, 3)`` and dtype uint8.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f'smmix_mm.{transform} needs images of shape (H, W, 3) and dtype uint8, but got {image.shape} and '
            f'{image.dtype}; use mmpretrain.{transform} for others'
        )


def store_densely(image: np.ndarray) -> np.ndarray:
    """Copies an image if its pixels do not lie one after the other.

    Views with mirrored columns or channels are copied by OpenCV, in a tenth of the time that NumPy takes.

    Args:
        image (np.ndarray): ``(H, W, 3)``, uint8.
    """
    if image.strides[2] < 0:
        return cv2.cvtColor(store_densely(image[..., ::-1]), cv2.COLOR_RGB2BGR)
    if image.strides[1] < 0:
        return cv2.flip(np.ascontiguousarray(image[:, ::-1]), 1)
    # A single row may be a mirrored view that NumPy calls contiguous.
    return image.copy() if image.strides[0] < 0 else np.ascontiguousarray(image)
