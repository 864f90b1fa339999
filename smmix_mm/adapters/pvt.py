"""Our own PVT."""

import math

from torch import Tensor

from smmix_mm import functional
from smmix_mm.models.backbones.pvt import PVT
from smmix_mm.registry import ADAPTERS
from smmix_mm.structures import Features

from .base import Adapter, Tap, opened


@ADAPTERS.register_module()
class PVTAdapter(Adapter):
    """Reads :class:`smmix_mm.PVT` with a class token; the grid is that of the fourth stage.

    Args:
        backbone (PVT): With ``out_type='cls_token'``.

    Raises:
        ValueError: If the backbone gives feature maps, which it does not normalise.
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

    def read(self, images: Tensor, attention: bool = False) -> Features:
        with opened(self._patches, self._last_tokens, *([self._query, self._key_value] if attention else [])):
            feats = self.backbone(images)
            grid = self._patches.value[1]
            tokens = self._last_tokens.value[:, 1:]
            scores = self._image_attention().unflatten(1, grid) if attention else None
        return Features(feats=feats, tokens=tokens, grid=grid, attention=scores)

    def grid(self, images: Tensor) -> tuple[int, int]:
        return self.backbone.grids(images.shape[-2:])[-1]

    def _image_attention(self) -> Tensor:
        query, key = self.backbone.block4[-1].attn.split_heads(self._query.value, self._key_value.value)[:2]
        return functional.image_attention(query, key, num_extra_tokens=1)
