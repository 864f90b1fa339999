from .backbones import PVT, CaiT
from .classifiers import MixingClassifier
from .initialization import init_transformer
from .losses import ClassWeightedCrossEntropy, SMMixLoss
from .mix_block import MixBlock

__all__ = [
    'PVT',
    'CaiT',
    'ClassWeightedCrossEntropy',
    'MixBlock',
    'MixingClassifier',
    'SMMixLoss',
    'init_transformer',
]
