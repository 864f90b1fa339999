"""One adapter per stock backbone family: the only places that know one. Those of our own stand beside them."""

from .base import Adapter, Tap, build_adapter, opened, read_scores
from .swin import SwinTransformerAdapter
from .vit import VisionTransformerAdapter

__all__ = [
    'Adapter',
    'SwinTransformerAdapter',
    'Tap',
    'VisionTransformerAdapter',
    'build_adapter',
    'opened',
    'read_scores',
]
