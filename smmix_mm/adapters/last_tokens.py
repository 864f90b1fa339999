"""Adapters of mmpretrain's transformers that put out a class token, or the mean of their tokens."""

from functools import partial

import torch
from mmpretrain.models.backbones import TNT, BEiTViT, RevVisionTransformer, T2T_ViT, ViTEVA02, XCiT
from torch import Tensor, nn
from torch.nn import functional as F

from smmix_mm.registry import ADAPTERS

from .base import split_heads
from .feature_map import TappedMapAdapter, check_last_output
from .global_attention import GlobalAttention, QueryKey


class LastTokensAdapter(TappedMapAdapter):
    """Reads the tokens of the last block.

    ``tokens`` are after every norm between the last block and the head, without class token.

    Args:
        backbone (nn.Module): With a norm behind its last block, and ``out_type`` other than ``'raw'``.

    Raises:
        ValueError: If the backbone has no normalised tokens in these settings.
    """

    def __init__(self, backbone: nn.Module) -> None:
        if getattr(backbone, 'out_type', None) == 'raw' or not self._norms(backbone):
            raise ValueError(
                f'{type(backbone).__name__} needs tokens behind a norm, of which the head sees one or the mean, but '
                f'got out_type={backbone.out_type!r} and final_norm={getattr(backbone, "final_norm", False)}; set '
                f"out_type='cls_token' or 'avg_featmap', and final_norm=True"
            )
        if hasattr(backbone, 'out_indices'):
            check_last_output(backbone, len(self._blocks(backbone)) - 1)
        super().__init__(backbone)

    def _blocks(self, backbone: nn.Module) -> nn.ModuleList:
        """The blocks that ``out_indices`` of the backbone counts."""
        return backbone.layers

    def _last_module(self, backbone: nn.Module) -> nn.Module:
        return self._blocks(backbone)[-1]

    def _norms(self, backbone: nn.Module) -> list[nn.Module]:
        """The norms between the last block and the head."""
        norms = [backbone.ln1] if backbone.final_norm else []
        return [*norms, backbone.ln2] if backbone.out_type == 'avg_featmap' else norms

    def _map(self, output: Tensor) -> Tensor:
        return output[:, self._num_extra_tokens() :].mT

    def _num_extra_tokens(self) -> int:
        return self.backbone.num_extra_tokens

    def _by_class_token(self) -> bool:
        return self.backbone.out_type == 'cls_token'

    def _normalise(self, places: Tensor) -> Tensor:
        for norm in self._norms(self.backbone):
            places = norm(places)
        return places


@ADAPTERS.register_module()
class XCiTAdapter(LastTokensAdapter):
    """Reads mmpretrain's ``XCiT``, whose attention is between channels."""

    family = XCiT

    def _blocks(self, backbone: nn.Module) -> nn.ModuleList:
        return nn.ModuleList([*backbone.xca_layers, *backbone.ca_layers])

    def _norms(self, backbone: nn.Module) -> list[nn.Module]:
        return [backbone.norm] if hasattr(backbone, 'norm') else []

    def _num_extra_tokens(self) -> int:
        return 1


@ADAPTERS.register_module()
class BEiTAdapter(LastTokensAdapter, GlobalAttention):
    """Reads mmpretrain's ``BEiTViT``: BEiT, BEiT v2 and EVA. Relative position biases are part of the attention."""

    family = BEiTViT

    def _attended(self, backbone: nn.Module) -> nn.Module:
        # Not attn.qkv, which is no more than a weight where the keys have no bias.
        return backbone.layers[-1].ln1

    def _query_key(self, output: Tensor, grid: tuple[int, int]) -> QueryKey:
        attention = self.backbone.layers[-1].attn
        bias = attention.qkv.bias
        if attention.bias == 'qv_bias':
            bias = torch.cat([attention.q_bias, torch.zeros_like(attention.v_bias), attention.v_bias])
        query, key, _ = split_heads(F.linear(output, attention.qkv.weight, bias), attention.num_heads)
        return query, key

    def _scale(self) -> float:
        return self.backbone.layers[-1].attn.scale

    def _bias(self) -> Tensor | None:
        attention, shared = self.backbone.layers[-1].attn, self.backbone.rel_pos_bias
        bias = None if shared is None else shared()
        if attention.relative_position_bias_table is not None:
            own = attention.relative_position_bias_table[attention.relative_position_index].permute(2, 0, 1)
            bias = own if bias is None else bias + own
        return bias


@ADAPTERS.register_module()
class EVA02Adapter(LastTokensAdapter, GlobalAttention):
    """Reads mmpretrain's ``ViTEVA02``. Queries and keys are rotated by their position before they are compared."""

    family = ViTEVA02

    def _attended(self, backbone: nn.Module) -> nn.Module:
        return backbone.layers[-1].attn.qkv

    def _query_key(self, output: Tensor, grid: tuple[int, int]) -> QueryKey:
        attention, extra = self.backbone.layers[-1].attn, self._num_extra_tokens()
        query, key, _ = split_heads(output, attention.num_heads)
        if attention.rope:
            query, key = (
                torch.cat([part[:, :, :extra], attention.rope(part[:, :, extra:], grid)], dim=2)
                for part in (query, key)
            )
        return query, key

    def _scale(self) -> float:
        return self.backbone.layers[-1].attn.scale


@ADAPTERS.register_module()
class T2TViTAdapter(LastTokensAdapter, GlobalAttention):
    """Reads mmpretrain's ``T2T_ViT``."""

    family = T2T_ViT

    def _blocks(self, backbone: nn.Module) -> nn.ModuleList:
        return backbone.encoder

    def _norms(self, backbone: nn.Module) -> list[nn.Module]:
        return [backbone.norm] if backbone.final_norm else []

    def _attended(self, backbone: nn.Module) -> nn.Module:
        return backbone.encoder[-1].attn.qkv

    def _query_key(self, output: Tensor, grid: tuple[int, int]) -> QueryKey:
        query, key, _ = split_heads(output, self.backbone.encoder[-1].attn.num_heads)
        return query, key

    def _scale(self) -> float | None:
        # If qk_scale is set, as it is by T2T_ViT, mmpretrain divides by head_dim ** -0.5 instead of multiplying.
        attend = self.backbone.encoder[-1].attn.scaled_dot_product_attention
        return 1 / attend.keywords['scale'] if isinstance(attend, partial) else None


@ADAPTERS.register_module()
class RevVisionTransformerAdapter(LastTokensAdapter, GlobalAttention):
    """Reads mmpretrain's ``RevVisionTransformer``, whose two streams are normalised before they become one."""

    family = RevVisionTransformer

    def _last_module(self, backbone: nn.Module) -> nn.Module:
        return backbone.fusion_layer

    def _norms(self, backbone: nn.Module) -> list[nn.Module]:
        return [backbone.ln1] if backbone.final_norm else []

    def _normalise(self, places: Tensor) -> Tensor:
        return places

    def _attended(self, backbone: nn.Module) -> nn.Module:
        return backbone.layers[-1].attn.qkv

    def _query_key(self, output: Tensor, grid: tuple[int, int]) -> QueryKey:
        query, key, _ = split_heads(output, self.backbone.layers[-1].attn.num_heads)
        return query, key


@ADAPTERS.register_module()
class TNTAdapter(LastTokensAdapter, GlobalAttention):
    """Reads mmpretrain's ``TNT``: the tokens and the attention of the outer transformer."""

    family = TNT

    def _norms(self, backbone: nn.Module) -> list[nn.Module]:
        return [backbone.norm]

    def _map(self, output: tuple[Tensor, Tensor]) -> Tensor:
        return super()._map(output[1])

    def _num_extra_tokens(self) -> int:
        return 1

    def _by_class_token(self) -> bool:
        return True

    def _attended(self, backbone: nn.Module) -> nn.Module:
        return backbone.layers[-1].outer_block.norm_attn

    def _query_key(self, output: Tensor, grid: tuple[int, int]) -> QueryKey:
        attention = self.backbone.layers[-1].outer_block.attn.attn
        projected = F.linear(output, attention.in_proj_weight, attention.in_proj_bias)
        query, key, _ = split_heads(projected, attention.num_heads)
        return query, key
