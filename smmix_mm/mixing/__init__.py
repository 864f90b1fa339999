"""One file per method: it draws, calls :mod:`smmix_mm.functional`, returns a ``MixedBatch``."""

from .base import MixingMethod
from .random_mixing import RandomMixing
from .smmix import SMMix
from .stock import StockMixing, Unmixed
from .streams import Streams, step_streams

__all__ = ['MixingMethod', 'RandomMixing', 'SMMix', 'StockMixing', 'Streams', 'Unmixed', 'step_streams']
