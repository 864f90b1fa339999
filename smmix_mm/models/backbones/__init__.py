from .cait import CaiT
from .cait_adapter import CaiTAdapter
from .pvt import PVT
from .pvt_adapter import PVTAdapter

__all__ = ['PVT', 'CaiT', 'CaiTAdapter', 'PVTAdapter']
