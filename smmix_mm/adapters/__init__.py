"""Adapters of stock backbones, one per family. Adapters of this project's backbones lie beside the backbones."""

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
