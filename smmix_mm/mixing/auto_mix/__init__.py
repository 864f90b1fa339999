from .auto_mix import AutoMix
from .mix_block import MixBlock
from .momentum_model import MomentumModel

__all__ = ['AutoMix', 'MixBlock', 'MomentumModel']
