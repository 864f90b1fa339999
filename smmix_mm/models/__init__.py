# This import keeps mmengine from executing anything that is pickled in a checkpoint.
import smmix_mm.checkpoint  # noqa: F401

from .backbones import PVT, CaiT
from .classifiers import MixingClassifier
from .initialization import init_transformer
from .pretrained import load_backbone, load_classifier

__all__ = [
    'PVT',
    'CaiT',
    'MixingClassifier',
    'init_transformer',
    'load_backbone',
    'load_classifier',
]
