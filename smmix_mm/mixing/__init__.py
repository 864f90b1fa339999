"""Mixing methods, one file or folder each. They draw, call :mod:`smmix_mm.functional`, return a ``MixedBatch``."""

from smmix_mm.streams import Streams, step_streams

from .attentive_mix import AttentiveMix
from .auto_mix import AutoMix, MixBlock
from .base import MixingMethod
from .f_mix import FMix
from .puzzle_mix import PuzzleMix
from .random_mixing import RandomMixing
from .resize_mix import ResizeMix
from .saliency_mix import SaliencyMix
from .smmix import SMMix
from .stock import StockMixing, Unmixed
from .token_mix import TokenMix
from .trans_mix import TransMix

__all__ = [
    'AttentiveMix',
    'AutoMix',
    'FMix',
    'MixBlock',
    'MixingMethod',
    'PuzzleMix',
    'RandomMixing',
    'ResizeMix',
    'SMMix',
    'SaliencyMix',
    'StockMixing',
    'Streams',
    'TokenMix',
    'TransMix',
    'Unmixed',
    'step_streams',
]
