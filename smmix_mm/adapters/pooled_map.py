"""Adapters of mmpretrain's backbones that average their map before the final norm."""

import torch.nn.functional as F
from mmpretrain.models.backbones import ConvNeXt, EdgeNeXt, HorNet, MixMIMTransformer, TinyViT
from torch import Tensor, nn

from smmix_mm.registry import ADAPTERS

from .feature_map import TappedMapAdapter


class PooledMapAdapter(TappedMapAdapter):
    """Reads the last stage's map before it is averaged.

    ``tokens`` are the map after the final norm, which is applied to every token, whether ``gap_before_final_norm`` is
    set or not.

    Args:
        backbone (nn.Module): With ``stages``, the last of them among ``out_indices``, and a LayerNorm behind it.

    Raises:
        ValueError: If the last stage is not among ``out_indices``, or its norm is another.
    """

    def __init__(self, backbone: nn.Module) -> None:
        name, last = type(backbone).__name__, len(backbone.stages) - 1
        if last not in backbone.out_indices:
            raise ValueError(
                f'out_indices of {name} have to contain the last stage, {last}, for tokens to be classified, but got '
                f'{tuple(backbone.out_indices)}'
            )
        self._norm_name = f'norm{last}'
        norm = getattr(backbone, self._norm_name)
        # HorNet's LayerNorm is a class of its own, with the same attributes.
        if not hasattr(norm, 'normalized_shape'):
            raise ValueError(
                f'norm_cfg of {name} makes the final norm {type(norm).__name__}, but this adapter applies LayerNorm '
                f'only; leave norm_cfg at its default'
            )
        super().__init__(backbone)

    def _last_module(self, backbone: nn.Module) -> nn.Module:
        # The block and not the stage: checkpoint_sequential runs the blocks alone.
        return backbone.stages[-1][-1]

    def _normalise(self, places: Tensor) -> Tensor:
        norm = getattr(self.backbone, self._norm_name)
        return F.layer_norm(places, places.shape[2:], norm.weight, norm.bias, norm.eps)


@ADAPTERS.register_module()
class ConvNeXtAdapter(PooledMapAdapter):
    """Reads mmpretrain's ``ConvNeXt``."""

    family = ConvNeXt


@ADAPTERS.register_module()
class EdgeNeXtAdapter(PooledMapAdapter):
    """Reads mmpretrain's ``EdgeNeXt``."""

    family = EdgeNeXt


@ADAPTERS.register_module()
class HorNetAdapter(PooledMapAdapter):
    """Reads mmpretrain's ``HorNet``."""

    family = HorNet


@ADAPTERS.register_module()
class TinyViTAdapter(PooledMapAdapter):
    """Reads mmpretrain's ``TinyViT``, whose last stage puts out tokens ``(B, h * w, C)``."""

    family = TinyViT

    def _last_module(self, backbone: nn.Module) -> nn.Module:
        return backbone.stages[-1]

    def _map(self, output: Tensor) -> Tensor:
        return output.mT


@ADAPTERS.register_module()
class MixMIMAdapter(TappedMapAdapter):
    """Reads mmpretrain's ``MixMIMTransformer``, which averages its tokens after the final norm."""

    family = MixMIMTransformer

    def _last_module(self, backbone: nn.Module) -> nn.Module:
        return backbone.norm

    def _map(self, output: Tensor) -> Tensor:
        return output.mT
