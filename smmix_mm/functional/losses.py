"""Building blocks of losses."""

import torch
import torch.nn.functional as F
from torch import Tensor


def region_means(tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean token inside and outside a mask.

    Args:
        tokens (Tensor): ``(B, N, C)``.
        mask (Tensor): ``(B, h, w)`` or ``(B, N)`` bool, ``N = h * w``, with tokens inside and outside in every image.

    Returns:
        tuple[Tensor, Tensor]: ``(B, C)`` inside and ``(B, C)`` outside, in the dtype of ``tokens`` and accumulated in
        at least float32.
    """
    dtype = torch.promote_types(tokens.dtype, torch.float32)
    inside = mask.flatten(1).to(dtype)
    weights = torch.stack([inside, 1 - inside], dim=1)
    weights = weights / weights.sum(dim=2, keepdim=True)
    # Outside autocast, which would round the weights to half precision.
    with torch.autocast(tokens.device.type, enabled=False):
        means = weights @ tokens.to(dtype)
    source, target = means.to(tokens.dtype).unbind(1)
    return source, target


def consistency_loss(logits: Tensor, expected: Tensor) -> Tensor:
    r"""Divergence of the mixed image's prediction from that of the unmixed images (equation 9).

    :math:`KL(p \,\|\, \mathrm{softmax}(Y_M))`, summed over classes, mean over the batch. This is the direction of the
    authors' code; the paper prints the arguments the other way round.

    Args:
        logits (Tensor): :math:`Y_M`, ``(B, classes)``.
        expected (Tensor): :math:`p`, ``(B, classes)``, non-negative, each row summing to 1.

    Returns:
        Tensor: Scalar, at least 0.
    """
    return F.kl_div(F.log_softmax(logits.float(), dim=1), expected.float(), reduction='batchmean')
