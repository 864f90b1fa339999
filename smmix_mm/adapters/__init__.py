"""Adapters of stock backbones, one per family, and one for every other backbone that ends in a feature map.

Adapters of this project's backbones lie beside the backbones.
"""

from .base import Adapter, Tap, build_adapter, evaluating, opened, read_scores, split_heads
from .feature_map import FeatureMapAdapter
from .global_attention import GlobalAttention, HiViTAdapter, TwinsAdapter
from .last_tokens import (
    BEiTAdapter,
    EVA02Adapter,
    LastTokensAdapter,
    RevVisionTransformerAdapter,
    T2TViTAdapter,
    TNTAdapter,
    XCiTAdapter,
)
from .pooled_map import (
    ConvNeXtAdapter,
    EdgeNeXtAdapter,
    HorNetAdapter,
    MixMIMAdapter,
    PooledMapAdapter,
    TinyViTAdapter,
)
from .swin import SwinTransformerAdapter, SwinTransformerV2Adapter
from .vit import VisionTransformerAdapter

__all__ = [
    'Adapter',
    'BEiTAdapter',
    'ConvNeXtAdapter',
    'EVA02Adapter',
    'EdgeNeXtAdapter',
    'FeatureMapAdapter',
    'GlobalAttention',
    'HiViTAdapter',
    'HorNetAdapter',
    'LastTokensAdapter',
    'MixMIMAdapter',
    'PooledMapAdapter',
    'RevVisionTransformerAdapter',
    'SwinTransformerAdapter',
    'SwinTransformerV2Adapter',
    'T2TViTAdapter',
    'TNTAdapter',
    'Tap',
    'TinyViTAdapter',
    'TwinsAdapter',
    'VisionTransformerAdapter',
    'XCiTAdapter',
    'build_adapter',
    'evaluating',
    'opened',
    'read_scores',
    'split_heads',
]
