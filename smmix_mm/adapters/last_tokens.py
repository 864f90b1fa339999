"""Adapters of mmpretrain's transformers whose attention is not read."""

from mmpretrain.models.backbones import BEiTViT, ViTEVA02, XCiT
from torch import Tensor, nn

from smmix_mm.registry import ADAPTERS

from .feature_map import TappedMapAdapter


class LastTokensAdapter(TappedMapAdapter):
    """Reads the tokens of the last block.

    ``tokens`` are after every norm between the last block and the head, without class token.

    Args:
        backbone (nn.Module): With a norm behind its last block, and ``out_type`` other than ``'raw'``.

    Raises:
        ValueError: If the backbone has no normalised tokens in these settings.
    """

    def __init__(self, backbone: nn.Module) -> None:
        if backbone.out_type == 'raw' or not self._norms(backbone):
            raise ValueError(
                f'{type(backbone).__name__} needs tokens behind a norm, of which the head sees one or the mean, but '
                f'got out_type={backbone.out_type!r} and final_norm={getattr(backbone, "final_norm", False)}; set '
                f"out_type='cls_token' or 'avg_featmap', and final_norm=True"
            )
        super().__init__(backbone)

    def _last_module(self, backbone: nn.Module) -> nn.Module:
        return backbone.layers[-1]

    def _norms(self, backbone: nn.Module) -> list[nn.Module]:
        """The norms between the last block and the head."""
        norms = [backbone.ln1] if backbone.final_norm else []
        return [*norms, backbone.ln2] if backbone.out_type == 'avg_featmap' else norms

    def _map(self, output: Tensor) -> Tensor:
        return output[:, self._num_extra_tokens() :].mT

    def _num_extra_tokens(self) -> int:
        return self.backbone.num_extra_tokens

    def _normalise(self, places: Tensor) -> Tensor:
        for norm in self._norms(self.backbone):
            places = norm(places)
        return places


@ADAPTERS.register_module()
class BEiTAdapter(LastTokensAdapter):
    """Reads mmpretrain's ``BEiTViT``: BEiT, BEiT v2 and EVA."""

    family = BEiTViT


@ADAPTERS.register_module()
class EVA02Adapter(LastTokensAdapter):
    """Reads mmpretrain's ``ViTEVA02``."""

    family = ViTEVA02


@ADAPTERS.register_module()
class XCiTAdapter(LastTokensAdapter):
    """Reads mmpretrain's ``XCiT``, whose attention is between channels."""

    family = XCiT

    def _last_module(self, backbone: nn.Module) -> nn.Module:
        return backbone.ca_layers[-1]

    def _norms(self, backbone: nn.Module) -> list[nn.Module]:
        return [backbone.norm] if hasattr(backbone, 'norm') else []

    def _num_extra_tokens(self) -> int:
        return 1
