"""The adapter of PVT."""

import math

from torch import Tensor, nn

from smmix_mm.adapters.base import Adapter, Tap, opened, read_scores
from smmix_mm.registry import ADAPTERS
from smmix_mm.structures import Features

from .pvt import NUM_STAGES, PVT


@ADAPTERS.register_module()
class PVTAdapter(Adapter):
    """Reads :class:`smmix_mm.PVT` with a class token; the grid is that of the fourth stage. Layers are stages.

    Args:
        backbone (PVT): With ``out_type='cls_token'``.

    Raises:
        ValueError: If the backbone returns feature maps, which have no final norm.
    """

    family = PVT

    def __init__(self, backbone: PVT) -> None:
        super().__init__(backbone)
        if backbone.out_type != 'cls_token':
            raise ValueError(
                f"PVT needs out_type='cls_token' to be trained as a classifier, but got {backbone.out_type!r}"
            )
        self.embed_dims = backbone.embed_dims[-1]
        self.stride = (math.prod(backbone.strides),) * 2
        last_attention = backbone.block4[-1].attn
        self._patches = Tap(backbone.patch_embed4)
        self._last_tokens = Tap(backbone.norm)
        self._query = Tap(last_attention.q)
        self._key_value = Tap(last_attention.kv)
        self.num_layers = NUM_STAGES
        self.middle_layer = NUM_STAGES - 1

    def read(self, images: Tensor, attention: bool = False, class_attention: bool = False) -> Features:
        asked = attention or class_attention
        with opened(self._patches, self._last_tokens, *([self._query, self._key_value] if asked else [])):
            feats = self.backbone(images)
            grid = self._patches.value[1]
            tokens = self._last_tokens.value[:, 1:]
            scores = self._scores(grid, attention, class_attention) if asked else {}
        return Features(feats=feats, tokens=tokens, grid=grid, **scores)

    def grid(self, images: Tensor) -> tuple[int, int]:
        return self.backbone.grids(images.shape[-2:])[-1]

    def check_size(self, size: tuple[int, int]) -> None:
        self.backbone.grids(size)

    def layer_dims(self, layer: int) -> int:
        return self.backbone.embed_dims[layer - 1]

    def _scores(self, grid: tuple[int, int], attention: bool, class_attention: bool) -> dict[str, Tensor]:
        query, key = self.backbone.block4[-1].attn.split_heads(self._query.value, self._key_value.value)[:2]
        return read_scores(query, key, 1, grid, attention, class_attention)

    def _layer(self, layer: int) -> nn.Module:
        return getattr(self.backbone, f'block{layer}')[-1]

    def _layer_map(self, output: Tensor, images: Tensor, layer: int) -> Tensor:
        grid = self.backbone.grids(images.shape[-2:])[layer - 1]
        # In the last stage the class token comes first.
        return output[:, -grid[0] * grid[1] :].transpose(1, 2).unflatten(2, grid)
