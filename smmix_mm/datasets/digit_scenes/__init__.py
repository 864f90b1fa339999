"""Datasets generated locally from the handwritten digits of scikit-learn.

``classification`` and ``dense`` are the datasets, ``scenes`` and ``dense_scenes`` draw their pictures, and
``generated_folder`` writes them to disk once.
"""

from .classification import DigitScenes
from .dense import digit_scenes_detection, digit_scenes_segmentation

__all__ = ['DigitScenes', 'digit_scenes_detection', 'digit_scenes_segmentation']
