"""Attention among all tokens of the last block, computed from its queries and keys."""

from abc import abstractmethod

import torch
from mmpretrain.models.backbones import PCPVT, HiViT
from mmpretrain.models.backbones.twins import GlobalSubsampledAttention
from torch import Tensor, nn

from smmix_mm.registry import ADAPTERS

from .base import Tap, read_scores
from .feature_map import FeatureMapAdapter, check_last_output

QueryKey = tuple[Tensor, Tensor]


class GlobalAttention(FeatureMapAdapter):
    """Reads the attention of a last block in which every token attends to every other.

    The weights are computed in addition to the run, from the queries and keys that the block computed or, where no
    module puts these out, from its normalised input.
    """

    has_attention = True

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__(backbone)
        self._score_taps = (Tap(self._attended(backbone)),)

    @abstractmethod
    def _attended(self, backbone: nn.Module) -> nn.Module:
        """The module from whose output queries and keys follow."""

    @abstractmethod
    def _query_key(self, output: Tensor, grid: tuple[int, int]) -> QueryKey:
        """Queries and keys ``(B, heads, E + N, head_dim)``."""

    def _scale(self) -> float | None:
        """Factor on the products of queries and keys; None for ``head_dim ** -0.5``."""
        return None

    def _bias(self) -> Tensor | None:
        """Added to the scaled products, ``(heads, E + N, E + N)``."""
        return None

    def _num_extra_tokens(self) -> int:
        return 0

    def _by_class_token(self) -> bool:
        return False

    @torch.no_grad()
    def _scores(
        self, places: Tensor, grid: tuple[int, int], attention: bool, class_attention: bool
    ) -> dict[str, Tensor]:
        query, key = self._query_key(self._score_taps[0].value, grid)
        return read_scores(
            query,
            key,
            self._num_extra_tokens(),
            grid,
            attention,
            class_attention,
            self._by_class_token(),
            self._scale(),
            self._bias(),
        )


@ADAPTERS.register_module()
class TwinsAdapter(GlobalAttention):
    """Reads mmpretrain's Twins: ``PCPVT`` and ``SVT``, whose last block attends to the whole map.

    Args:
        backbone (PCPVT): Its last stage is put out last, and its last block attends to the whole map without reducing
            its keys (``sr_ratio`` 1), as in all archs.

    Raises:
        ValueError: If not.
    """

    family = PCPVT

    def __init__(self, backbone: PCPVT) -> None:
        check_last_output(backbone, len(backbone.stages) - 1)
        last = backbone.stages[-1][-1].attn
        if not isinstance(last, GlobalSubsampledAttention):
            raise ValueError(
                f'the last block of {type(backbone).__name__} attends inside windows, since every second one of '
                f'depths={[len(stage) for stage in backbone.stages]} does; choose an even last depth'
            )
        reduced = last.sr_ratio
        if reduced != 1:
            raise ValueError(
                f'the last block of {type(backbone).__name__} has sr_ratio={reduced}, so that tokens attend to '
                f'{reduced} x {reduced} others at once; set the last of sr_ratios to 1'
            )
        super().__init__(backbone)

    def _attended(self, backbone: PCPVT) -> nn.Module:
        return backbone.stages[-1][-1].norm1

    def _query_key(self, output: Tensor, grid: tuple[int, int]) -> QueryKey:
        attention = self.backbone.stages[-1][-1].attn
        query, key_value = attention.q(output), attention.kv(output)
        heads = attention.num_heads
        return (
            query.unflatten(2, (heads, -1)).transpose(1, 2),
            key_value.unflatten(2, (2, heads, -1))[:, :, 0].transpose(1, 2),
        )


@ADAPTERS.register_module()
class HiViTAdapter(FeatureMapAdapter):
    """Reads mmpretrain's ``HiViT``; the attention is that of its last softmax."""

    family = HiViT
    has_attention = True

    def __init__(self, backbone: HiViT) -> None:
        # It counts the blocks of its last stage.
        check_last_output(backbone, backbone.num_main_blocks - 1)
        super().__init__(backbone)
        self._score_taps = (Tap(backbone.blocks[-1].attn.softmax),)

    def _image_scores(self, places: Tensor) -> Tensor:
        return self._score_taps[0].value.float().mean(dim=(1, 2))
