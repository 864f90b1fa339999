from .backbones import PVT
from .classifiers import MixingClassifier
from .initialization import init_transformer
from .losses import SMMixLoss

__all__ = ['PVT', 'MixingClassifier', 'SMMixLoss', 'init_transformer']
