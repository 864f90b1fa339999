"""Adapters of mmpretrain's SwinTransformer and SwinTransformerV2."""

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from mmpretrain.models.backbones import SwinTransformer, SwinTransformerV2
from mmpretrain.models.utils import ShiftWindowMSA, WindowMSA, WindowMSAV2
from torch import Tensor, nn

from smmix_mm.registry import ADAPTERS
from smmix_mm.structures import Features

from .base import Adapter, Tap, opened


@ADAPTERS.register_module()
class SwinTransformerAdapter(Adapter):
    """Reads mmpretrain's ``SwinTransformer``; the grid is that of the last stage.

    The attention is read from the softmax of the last block's windows, with relative position bias and shift mask, and
    put back to the windows' places in the image. It is zero between tokens of different windows. Tokens that pad the
    map to whole windows take part in the softmax, but their rows and columns are left out. There is no class token: the
    class attention is the image attention.

    Layers are stages, read after patch merging (which the last stage does not have) and normalised without weights.
    Layer 3 of Swin-T is the 7 x 7 x 768 map that OpenMixup's AutoMix reads, whose norm is not trained.

    Args:
        backbone (SwinTransformer): With the last stage among ``out_indices``, a final norm and the stock attention.

    Raises:
        ValueError: If the backbone has no normalised tokens in these settings, or their attention cannot be read.
    """

    family = SwinTransformer
    window_attention: ClassVar[type[nn.Module]] = WindowMSA

    def __init__(self, backbone: SwinTransformer) -> None:
        super().__init__(backbone)
        name, last = type(backbone).__name__, len(backbone.stages) - 1
        if last not in backbone.out_indices:
            raise ValueError(
                f'out_indices of {name} have to contain the last stage, {last}, whose tokens are classified, but got '
                f'{tuple(backbone.out_indices)}'
            )
        norm = getattr(backbone, f'norm{last}')
        if isinstance(norm, nn.Identity):
            raise ValueError(
                f'norm_cfg=None of {name} gives no normalised tokens, which are needed to classify regions; leave '
                f'norm_cfg at its default'
            )
        attention = backbone.stages[last].blocks[-1].attn
        windows = getattr(attention, 'w_msa', None)
        if not (isinstance(attention, ShiftWindowMSA) and isinstance(windows, self.window_attention)):
            found = type(attention if windows is None else windows).__name__
            raise ValueError(
                f'the attention of {name} is {found}, but this adapter reads {self.window_attention.__name__} only'
            )
        self.embed_dims = norm.normalized_shape[0]
        merging = [downsample.sampler for downsample in self._mergings() if downsample is not None]
        strides = [layer.stride for layer in (backbone.patch_embed.projection, *merging)]
        self.stride = (math.prod(rows for rows, _ in strides), math.prod(cols for _, cols in strides))
        self._last_tokens = Tap(norm)
        self._weights = Tap(windows.softmax)
        self.num_layers = len(backbone.stages)
        self.middle_layer = max(1, self.num_layers - 1)

    def read(self, images: Tensor, attention: bool = False, class_attention: bool = False) -> Features:
        self.check_size(images.shape[-2:])
        asked, grid, scores = attention or class_attention, self.grid(images), None
        with opened(self._last_tokens, *([self._weights] if asked else [])):
            feats = self.backbone(images)
            tokens = self._last_tokens.value
            if asked:
                scores = self._image_attention(self._weights.value, grid)
        return Features(feats, tokens, grid, scores if attention else None, scores if class_attention else None)

    def grid(self, images: Tensor) -> tuple[int, int]:
        return self._grids(images.shape[-2:])[-1]

    def check_size(self, size: tuple[int, int]) -> None:
        for index, (stage, grid) in enumerate(zip(self.backbone.stages, self._grids(size), strict=True), 1):
            needed = max((block.attn.window_size for block in stage.blocks if not block.attn.pad_small_map), default=1)
            if min(grid) < needed:
                raise ValueError(
                    f'window_size={needed} of {type(self.backbone).__name__} needs at least {needed} tokens a side in '
                    f'stage {index}, but images of {size[0]} x {size[1]} pixels give {grid[0]} x {grid[1]}; set '
                    f'pad_small_map=True or choose other sizes'
                )

    def layer_dims(self, layer: int) -> int:
        return self.backbone.stages[layer - 1].out_channels

    def _layer(self, layer: int) -> nn.Module:
        stage = self.backbone.stages[layer - 1]
        return stage if stage.downsample is None else stage.downsample

    def _layer_map(self, output: tuple[Tensor, tuple[int, int]], images: Tensor, layer: int) -> Tensor:
        tokens, grid = output
        return F.layer_norm(tokens, tokens.shape[2:]).transpose(1, 2).unflatten(2, grid)

    def _mergings(self) -> list[nn.Module | None]:
        """What merges the patches of each stage for the next."""
        *others, last = (stage.downsample for stage in self.backbone.stages)
        if last is not None:
            raise ValueError(
                'stage_cfgs of SwinTransformer set downsample=True in the last stage, so that its tokens do not match '
                'its attention; remove it'
            )
        return others

    def _grids(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        """Token grids ``(h, w)`` of the stages, computed from the layers that embed and merge patches."""
        embed = self.backbone.patch_embed
        grids = [_slide(tuple(size), embed.adaptive_padding, embed.projection)]
        for merging in self._mergings():
            grids.append(grids[-1] if merging is None else _slide(grids[-1], merging.adaptive_padding, merging.sampler))
        return grids

    @torch.no_grad()
    def _image_attention(self, weights: Tensor, grid: tuple[int, int]) -> Tensor:
        """Converts weights ``(B * windows, heads, n, n)`` of the last block to scores ``(B, h, w)``."""
        attention = self.backbone.stages[-1].blocks[-1].attn
        window, shift = attention.window_size, attention.shift_size
        if min(grid) == window and not attention.pad_small_map:
            shift = 0  # as the stock block does with a map of one window a side
        padded = tuple(math.ceil(side / window) * window for side in grid)
        weights = weights.mean(dim=1, dtype=torch.promote_types(weights.dtype, torch.float32))
        if padded == tuple(grid):
            received = weights.sum(dim=1)
        else:
            real = weights.new_ones(1, *grid, 1)
            real = F.pad(real, (0, 0, 0, padded[1] - grid[1], 0, padded[0] - grid[0])).roll((-shift, -shift), (1, 2))
            real = attention.window_partition(real, window).flatten(1)
            received = (weights.unflatten(0, (-1, len(real))) * real.unsqueeze(2)).sum(dim=2).flatten(0, 1)
        scores = attention.window_reverse(received, *padded, window).squeeze(-1)
        scores = scores.roll((shift, shift), (1, 2))[:, : grid[0], : grid[1]]
        return scores / (grid[0] * grid[1])


@ADAPTERS.register_module()
class SwinTransformerV2Adapter(SwinTransformerAdapter):
    """Reads mmpretrain's ``SwinTransformerV2`` as :class:`SwinTransformerAdapter` does; its stages begin with merging.

    Layers are stages, normalised without weights.
    """

    family = SwinTransformerV2
    window_attention = WindowMSAV2

    def _mergings(self) -> list[nn.Module | None]:
        first, *others = (stage.downsample for stage in self.backbone.stages)
        if first is not None:
            raise ValueError(
                'stage_cfgs of SwinTransformerV2 set downsample=True in the first stage, which its grids do not count; '
                'remove it'
            )
        return others

    def _layer(self, layer: int) -> nn.Module:
        return self.backbone.stages[layer - 1]


def _slide(size: tuple[int, int], padding: nn.Module | None, layer: nn.Conv2d | nn.Unfold) -> tuple[int, int]:
    """Number of positions of a layer's kernel on a map of this size, after adaptive padding if there is any."""
    extra = padding.get_pad_shape(size) if padding else (0, 0)
    return tuple(
        (side + more + 2 * around - dilation * (kernel - 1) - 1) // stride + 1
        for side, more, around, dilation, kernel, stride in zip(
            size, extra, layer.padding, layer.dilation, layer.kernel_size, layer.stride, strict=True
        )
    )
