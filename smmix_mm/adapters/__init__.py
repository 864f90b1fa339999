"""One adapter per backbone family: the only places that know a family."""

from .base import Adapter, Tap, build_adapter, opened, read_scores
from .cait import CaiTAdapter
from .pvt import PVTAdapter
from .swin import SwinTransformerAdapter
from .vit import VisionTransformerAdapter

__all__ = [
    'Adapter',
    'CaiTAdapter',
    'PVTAdapter',
    'SwinTransformerAdapter',
    'Tap',
    'VisionTransformerAdapter',
    'build_adapter',
    'opened',
    'read_scores',
]
