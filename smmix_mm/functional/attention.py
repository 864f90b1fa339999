"""Scores of tokens: how much attention they receive, and what takes its place in backbones without attention."""

import torch
import torch.nn.functional as F
from torch import Tensor


def image_attention(
    query: Tensor,
    key: Tensor,
    num_extra_tokens: int = 0,
    scale: float | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    r"""Attention that every image token receives, averaged over heads and over the image's own queries.

    :math:`\alpha_j = \mathrm{mean}_{heads}\,\mathrm{mean}_i\,\mathrm{softmax}(q_i k^\top s)_j`. Extra tokens (a class
    token) take part in the softmax, but their rows and columns are left out of the average, so the entries do not sum
    to one.

    Args:
        query (Tensor): Queries of the block, ``(B, heads, E + N, head_dim)``, the ``E`` extra tokens first.
        key (Tensor): Keys of the block, same shape.
        num_extra_tokens (int): ``E``. Defaults to 0.
        scale (float, optional): Factor on the products. Defaults to ``head_dim ** -0.5``.
        bias (Tensor, optional): Added to the scaled products, such as a relative position bias,
            ``(heads, E + N, E + N)``. Defaults to None.

    Returns:
        Tensor: ``(B, N)``, each entry in (0, 1), in float32 (float64 for float64 input).
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = (query[:, :, num_extra_tokens:] * scale) @ key.transpose(-2, -1)
    if bias is not None:
        scores = scores + bias[:, num_extra_tokens:]
    dtype = torch.promote_types(scores.dtype, torch.float32)
    received = scores.softmax(dim=-1, dtype=dtype).mean(dim=(1, 2))
    return received[:, num_extra_tokens:]


def class_attention(
    query: Tensor,
    key: Tensor,
    num_extra_tokens: int = 1,
    scale: float | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    r"""Attention that the class token pays to every image token, averaged over heads.

    :math:`\mathrm{mean}_{heads}\,\mathrm{softmax}(q_0 k^\top s)_j`: all extra tokens take part in the softmax, but
    their columns are left out, so the entries do not sum to one.

    Args:
        query (Tensor): Queries of the block, ``(B, heads, Q, head_dim)``, the class token's first.
        key (Tensor): Keys of the block, ``(B, heads, E + N, head_dim)``, the ``E`` extra tokens first.
        num_extra_tokens (int): ``E``. Defaults to 1.
        scale (float, optional): Factor on the products. Defaults to ``head_dim ** -0.5``.
        bias (Tensor, optional): Added to the scaled products, such as a relative position bias, ``(heads, Q, E + N)``.
            Defaults to None.

    Returns:
        Tensor: ``(B, N)``, each entry in (0, 1), in float32 (float64 for float64 input).
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = (query[:, :, :1] * scale) @ key.transpose(-2, -1)
    if bias is not None:
        scores = scores + bias[:, :1]
    dtype = torch.promote_types(scores.dtype, torch.float32)
    return scores.softmax(dim=-1, dtype=dtype).mean(dim=(1, 2))[:, num_extra_tokens:]


@torch.no_grad()
def activation_score(maps: Tensor) -> Tensor:
    r"""Energy of every token: the sum over channels of its squared activations, divided by the sum of all tokens.

    `Paying More Attention to Attention <https://arxiv.org/abs/1612.03928>`_ (ICLR 2017), :math:`F_{sum}^2`.

    Args:
        maps (Tensor): ``(B, N, C)``, floating.

    Returns:
        Tensor: ``(B, N)``, each entry in [0, 1], summing to 1 for each image, without gradients, in float32 (float64
        for float64 input). A map of zeros gives equal scores.
    """
    maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
    return _divide_by_sum(maps.square().sum(dim=2))


@torch.no_grad()
def class_activation_score(scores: Tensor) -> Tensor:
    """Turns the scores of one class at every token into a distribution: the least becomes 0, the sum 1.

    The class activation map of `Learning Deep Features for Discriminative Localization
    <https://arxiv.org/abs/1512.04150>`_ (CVPR 2016), shifted and scaled.

    Args:
        scores (Tensor): ``(B, N)``, floating.

    Returns:
        Tensor: ``(B, N)``, each entry in [0, 1], summing to 1 for each image, without gradients, in float32 (float64
        for float64 input). Equal scores stay equal.
    """
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    return _divide_by_sum(scores - scores.amin(dim=1, keepdim=True))


def resample_scores(scores: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resamples scores from one token grid to another: bilinear, with antialiasing where the new grid is coarser.

    Args:
        scores (Tensor): ``(B, h', w')``, floating.
        grid (tuple[int, int]): The new grid ``(h, w)``.

    Returns:
        Tensor: ``(B, h, w)``, within the range of the input; the input itself if it already has that grid.
    """
    if tuple(scores.shape[-2:]) == tuple(grid):
        return scores
    resized = F.interpolate(scores.unsqueeze(1), tuple(grid), mode='bilinear', align_corners=False, antialias=True)
    return resized.squeeze(1)


def _divide_by_sum(scores: Tensor) -> Tensor:
    """Divides ``(B, N)`` by its sums over ``N``; rows of zeros become uniform."""
    total = scores.sum(dim=1, keepdim=True)
    return torch.where(total > 0, scores / total, 1 / scores.shape[1])
