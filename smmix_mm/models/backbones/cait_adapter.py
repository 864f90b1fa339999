"""The adapter of CaiT."""

import torch
from torch import Tensor, nn

from smmix_mm import functional
from smmix_mm.adapters.base import Adapter, Tap, opened
from smmix_mm.registry import ADAPTERS
from smmix_mm.structures import Features

from .cait import CaiT


@ADAPTERS.register_module()
class CaiTAdapter(Adapter):
    """Reads :class:`smmix_mm.CaiT`.

    The image attention score is that of the last self-attention block, taken from the softmax that the backbone
    computes anyway, before its heads are mixed again; it has no class token. The class token's attention is that of the
    last class-attention block. The final norm, which the backbone applies to the class token alone, is applied to the
    image tokens here. Layers are self-attention blocks.

    Args:
        backbone (CaiT): With ``out_type='cls_token'``.

    Raises:
        ValueError: If it has another ``out_type``.
    """

    family = CaiT

    def __init__(self, backbone: CaiT) -> None:
        super().__init__(backbone)
        if backbone.out_type != 'cls_token':
            raise ValueError(
                f"CaiT needs out_type='cls_token' to be trained as a classifier, but got {backbone.out_type!r}"
            )
        self.embed_dims = backbone.embed_dims
        self.stride = (backbone.patch_size,) * 2
        last_attention = backbone.blocks_token_only[-1].attn
        self._last_tokens = Tap(backbone.blocks[-1])
        self._weights = Tap(backbone.blocks[-1].attn.softmax)
        self._query = Tap(last_attention.q)
        self._key = Tap(last_attention.k)
        self.num_layers = len(backbone.blocks)
        self.middle_layer = (self.num_layers + 1) // 2

    def read(self, images: Tensor, attention: bool = False, class_attention: bool = False) -> Features:
        asked = [self._weights] * attention + [self._query, self._key] * class_attention
        with opened(self._last_tokens, *asked):
            feats = self.backbone(images)
            tokens = self.backbone.norm(self._last_tokens.value)
            grid = self.grid(images)
            scores = {}
            if attention:
                scores['attention'] = self._image_attention(self._weights.value).unflatten(1, grid)
            if class_attention:
                scores['class_attention'] = self._class_attention().unflatten(1, grid)
        return Features(feats=feats, tokens=tokens, grid=grid, **scores)

    def grid(self, images: Tensor) -> tuple[int, int]:
        return self.backbone.grid(images.shape[-2:])

    def check_size(self, size: tuple[int, int]) -> None:
        self.backbone.grid(size)

    def layer_dims(self, layer: int) -> int:
        return self.embed_dims

    def _layer(self, layer: int) -> nn.Module:
        return self.backbone.blocks[layer - 1]

    def _layer_map(self, output: Tensor, images: Tensor, layer: int) -> Tensor:
        return output.transpose(1, 2).unflatten(2, self.grid(images))

    @torch.no_grad()
    def _image_attention(self, weights: Tensor) -> Tensor:
        return weights.mean(dim=(1, 2), dtype=torch.promote_types(weights.dtype, torch.float32))

    @torch.no_grad()
    def _class_attention(self) -> Tensor:
        split_heads = self.backbone.blocks_token_only[-1].attn.split_heads
        return functional.class_attention(split_heads(self._query.value), split_heads(self._key.value))
