from .cait import CaiT
from .pvt import PVT

__all__ = ['PVT', 'CaiT']
