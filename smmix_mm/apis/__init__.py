"""What is done with trained models outside of runs: the inferencers of mmpretrain, mmdet and mmseg, and ONNX.

Classes load on first use, since mmdet and mmseg need not be installed.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    'DetInferencer': 'detection',
    'ImageClassificationInferencer': 'classification',
    'MMSegInferencer': 'segmentation',
    'check_onnx': 'export',
    'export_onnx': 'export',
    'load_model': 'loading',
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'{__name__}.{_HOMES[name]}'), name)
