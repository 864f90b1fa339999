"""SMMix and its rivals for OpenMMLab.

Public classes load on first use, so that ``import smmix_mm.functional`` needs torch alone. In configs write the scope:
``type='smmix_mm.SMMix'`` is found by mmpretrain, mmdet and mmseg without ``custom_imports``.
"""

from importlib import import_module
from typing import Any

__version__ = '0.1.0'

_HOMES = {
    'Adapter': 'smmix_mm.adapters',
    'AttentiveMix': 'smmix_mm.mixing',
    'AutoMix': 'smmix_mm.mixing',
    'CaiT': 'smmix_mm.models',
    'ClassWeightedCrossEntropy': 'smmix_mm.losses',
    'DigitScenes': 'smmix_mm.datasets',
    'FMix': 'smmix_mm.mixing',
    'MixBlock': 'smmix_mm.mixing',
    'MixedBatch': 'smmix_mm.structures',
    'MixingClassifier': 'smmix_mm.models',
    'MixingMethod': 'smmix_mm.mixing',
    'PuzzleMix': 'smmix_mm.mixing',
    'Question': 'smmix_mm.structures',
    'PVT': 'smmix_mm.models',
    'ResizeMix': 'smmix_mm.mixing',
    'SaliencyMix': 'smmix_mm.mixing',
    'SMMix': 'smmix_mm.mixing',
    'SMMixLoss': 'smmix_mm.losses',
    'TokenMix': 'smmix_mm.mixing',
    'TransMix': 'smmix_mm.mixing',
    'get_config': 'smmix_mm.configs',
    'get_model': 'smmix_mm.engine',
}

__all__ = ['__version__', *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
