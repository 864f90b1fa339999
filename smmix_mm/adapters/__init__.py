"""One adapter per backbone family: the only places that know a family."""

from .base import Adapter, Tap, build_adapter, opened
from .pvt import PVTAdapter
from .vit import VisionTransformerAdapter

__all__ = ['Adapter', 'PVTAdapter', 'Tap', 'VisionTransformerAdapter', 'build_adapter', 'opened']
