"""Adapters of stock backbones, one per family, and one for every other backbone that ends in a feature map.

Adapters of this project's backbones lie beside the backbones.
"""

from .base import Adapter, Tap, build_adapter, evaluating, opened, read_scores
from .feature_map import FeatureMapAdapter
from .last_tokens import BEiTAdapter, EVA02Adapter, LastTokensAdapter, XCiTAdapter
from .pooled_map import ConvNeXtAdapter, EdgeNeXtAdapter, HorNetAdapter, PooledMapAdapter, TinyViTAdapter
from .swin import SwinTransformerAdapter
from .vit import VisionTransformerAdapter

__all__ = [
    'Adapter',
    'BEiTAdapter',
    'ConvNeXtAdapter',
    'EVA02Adapter',
    'EdgeNeXtAdapter',
    'FeatureMapAdapter',
    'HorNetAdapter',
    'LastTokensAdapter',
    'PooledMapAdapter',
    'SwinTransformerAdapter',
    'Tap',
    'TinyViTAdapter',
    'VisionTransformerAdapter',
    'XCiTAdapter',
    'build_adapter',
    'evaluating',
    'opened',
    'read_scores',
]
