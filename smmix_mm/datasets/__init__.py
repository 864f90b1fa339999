"""Datasets and the transforms they need."""

# This import keeps mmengine from executing anything that is pickled in a checkpoint.
import smmix_mm.checkpoint  # noqa: F401

from .corrupt import Corrupt
from .digit_scenes import DigitScenes, digit_scenes_detection, digit_scenes_segmentation
from .load_image import LoadImage
from .rand_augment import RandAugment
from .resized_crop import RandomResizedCrop
from .synset_folders import SynsetFolders
from .transforms import LoadInstances, LoadLabelMap

__all__ = [
    'Corrupt',
    'DigitScenes',
    'LoadImage',
    'LoadInstances',
    'LoadLabelMap',
    'RandAugment',
    'RandomResizedCrop',
    'SynsetFolders',
    'digit_scenes_detection',
    'digit_scenes_segmentation',
]
