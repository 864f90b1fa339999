"""Datasets and the transforms they need."""

# This import keeps mmengine from executing anything that is pickled in a checkpoint.
import smmix_mm.checkpoint  # noqa: F401

from .digit_scenes import DigitScenes, digit_scenes_detection, digit_scenes_segmentation
from .load_image import LoadImage
from .transforms import LoadInstances, LoadLabelMap

__all__ = [
    'DigitScenes',
    'LoadImage',
    'LoadInstances',
    'LoadLabelMap',
    'digit_scenes_detection',
    'digit_scenes_segmentation',
]
