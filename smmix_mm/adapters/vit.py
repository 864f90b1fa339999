"""Adapter of mmpretrain's VisionTransformer: ViT, DeiT and other models of that class."""

from mmpretrain.models.backbones import VisionTransformer
from mmpretrain.models.utils import MultiheadAttention
from torch import Tensor, nn

from smmix_mm.registry import ADAPTERS
from smmix_mm.structures import Features

from .base import Adapter, Tap, opened, read_scores, split_heads
from .feature_map import check_last_output


@ADAPTERS.register_module()
class VisionTransformerAdapter(Adapter):
    """Reads mmpretrain's ``VisionTransformer``, any arch and image size, with or without class token.

    ``tokens`` are after every norm between the last block and the head: the final norm and, with
    ``out_type='avg_featmap'``, the norm that the backbone applies after its average pooling. Layers are blocks.

    Args:
        backbone (VisionTransformer): With ``out_type`` other than ``'raw'``, the stock attention and ``out_indices``
            that end with the last block.

    Raises:
        ValueError: If the backbone has no normalised tokens in these settings, or its head gives no logits.
    """

    family = VisionTransformer

    def __init__(self, backbone: VisionTransformer) -> None:
        super().__init__(backbone)
        if backbone.out_type == 'raw':
            raise ValueError(
                "with out_type='raw' of VisionTransformer the head classifies every token instead of the image; "
                "use out_type='cls_token' or, without a class token, out_type='avg_featmap'"
            )
        if not backbone.final_norm and backbone.out_type != 'avg_featmap':
            raise ValueError(
                f'final_norm=False of VisionTransformer with out_type={backbone.out_type!r} gives no normalised '
                f'tokens, which are needed to classify regions; set final_norm=True'
            )
        check_last_output(backbone, len(backbone.layers) - 1)
        last_attention = backbone.layers[-1].attn
        if not isinstance(last_attention, MultiheadAttention):
            raise ValueError(
                f'the attention of {type(backbone).__name__} is {type(last_attention).__name__}, but this adapter '
                f'reads MultiheadAttention only'
            )
        self.embed_dims = backbone.embed_dims
        self.stride = tuple(backbone.patch_embed.projection.stride)
        self._patches = Tap(backbone.patch_embed)
        self._last_tokens = Tap(backbone.ln1 if backbone.final_norm else backbone.layers[-1])
        self._qkv = Tap(last_attention.qkv)
        self.num_layers = len(backbone.layers)
        self.middle_layer = (self.num_layers + 1) // 2

    def read(self, images: Tensor, attention: bool = False, class_attention: bool = False) -> Features:
        num_extra_tokens = self.backbone.num_extra_tokens
        asked = attention or class_attention
        with opened(self._patches, self._last_tokens, *([self._qkv] if asked else [])):
            feats = self.backbone(images)
            grid = tuple(self._patches.value[1])
            tokens = self._last_tokens.value[:, num_extra_tokens:]
            scores = self._scores(grid, attention, class_attention) if asked else {}
        if self.backbone.out_type == 'avg_featmap':
            tokens = self.backbone.ln2(tokens)
        return Features(feats=feats, tokens=tokens, grid=grid, **scores)

    def grid(self, images: Tensor) -> tuple[int, int]:
        # The patch embedding has padding rules of its own. Embedding one image avoids repeating them here.
        return tuple(self.backbone.patch_embed(images[:1].detach())[1])

    def layer_dims(self, layer: int) -> int:
        return self.embed_dims

    def _scores(self, grid: tuple[int, int], attention: bool, class_attention: bool) -> dict[str, Tensor]:
        heads = self.backbone.layers[-1].attn.num_heads
        query, key, _ = split_heads(self._qkv.value, heads)
        by_class_token = self.backbone.out_type == 'cls_token'
        extra = self.backbone.num_extra_tokens
        return read_scores(query, key, extra, grid, attention, class_attention, by_class_token)

    def _layer(self, layer: int) -> nn.Module:
        return self.backbone.layers[layer - 1]

    def _layer_map(self, output: Tensor, images: Tensor, layer: int) -> Tensor:
        return output[:, self.backbone.num_extra_tokens :].transpose(1, 2).unflatten(2, self.grid(images))
