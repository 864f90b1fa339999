"""The network that predicts the masks of AutoMix."""

import math
from numbers import Integral

import torch
from mmengine.model import normal_init
from torch import Tensor, nn

from smmix_mm.registry import MODELS


@MODELS.register_module()
class MixBlock(nn.Module):
    r"""Predicts the source's part at each position.

    `AutoMix: Unveiling the Power of Mixup for Stronger Classifiers <https://arxiv.org/abs/2103.13027>`_, section 3.3.

    Cross attention between the feature maps of the two images of a pair. Each image's share of the mixed image is
    appended to its features as one more channel: :math:`\lambda` to the source's :math:`\tilde z_A`,
    :math:`1 - \lambda` to the target's :math:`\tilde z_B`. Every position of the target then attends to all positions
    of the source:

    .. math::
        s = \sigma\left(\mathrm{softmax}\left(\frac{(W \tilde z_B)^T (W \tilde z_A)}{\sqrt{C'}}\right)
        (V \tilde z_A)^T\right)

    :math:`W`, for both queries and keys, has :math:`C' = C / reduction` output channels; :math:`V` has one. Both are
    1 x 1 convolutions, written as linear layers over positions. The target's part is :math:`1 - s`. The block is not
    symmetric: swapping images and shares does not turn :math:`s` into :math:`1 - s`. Weights are initialised from
    N(0, 0.01), biases with zero.

    The block runs outside autocast, in the precision of the parameters.

    Args:
        in_channels (int): Channels ``C`` of the features, at least ``reduction``.
        reduction (int): Factor by which queries and keys have fewer channels, at least 1. Defaults to 2.
        norm (bool): Whether to apply a layer norm to the features first. The published form has none. Defaults to
            False.

    Raises:
        ValueError: If a setting is outside its range.
    """

    def __init__(self, in_channels: int, reduction: int = 2, norm: bool = False) -> None:
        super().__init__()
        if not (isinstance(reduction, Integral) and 1 <= reduction <= in_channels):
            raise ValueError(
                f'reduction of MixBlock has to be a whole number from 1 to {in_channels}, the channels of its '
                f'features, but got {reduction!r}'
            )
        self.norm = nn.LayerNorm(in_channels) if norm else nn.Identity()
        self.query_key = nn.Linear(in_channels + 1, in_channels // reduction)
        self.value = nn.Linear(in_channels + 1, 1)
        for layer in (self.query_key, self.value):
            normal_init(layer, std=0.01)

    def forward(self, source: Tensor, target: Tensor, share: float) -> Tensor:
        """Predicts the masks of a batch of pairs.

        Args:
            source (Tensor): Features ``(B, C, h, w)`` of the sources.
            target (Tensor): Features of the targets, same shape.
            share (float): The source's wanted share of the mixed image, in [0, 1].

        Returns:
            Tensor: ``(B, h, w)``, the source's part at each position, in [0, 1].
        """
        with torch.autocast(source.device.type, enabled=False):
            grid = source.shape[-2:]
            source, target = self._embed(source, share), self._embed(target, 1 - share)
            query, key = self.query_key(target), self.query_key(source)
            attention = (query @ key.transpose(1, 2) / math.sqrt(key.shape[2])).softmax(dim=2)
            return (attention @ self.value(source)).sigmoid().squeeze(2).unflatten(1, grid)

    def _embed(self, features: Tensor, share: float) -> Tensor:
        """Converts features ``(B, C, h, w)`` to tokens ``(B, h * w, C + 1)`` with the share appended."""
        tokens = self.norm(features.flatten(2).transpose(1, 2).to(self.value.weight.dtype))
        return torch.cat([tokens, tokens.new_full((*tokens.shape[:2], 1), share)], dim=2)
