"""Datasets and the transforms they need."""

from .digit_scenes import DigitScenes
from .transforms import LoadImage

__all__ = ['DigitScenes', 'LoadImage']
