"""Scores of tokens: how much attention they receive."""

import torch
import torch.nn.functional as F
from torch import Tensor


def image_attention(query: Tensor, key: Tensor, num_extra_tokens: int = 0, scale: float | None = None) -> Tensor:
    r"""Attention that every image token receives, averaged over heads and over the image's own queries.

    :math:`\alpha_j = \mathrm{mean}_{heads}\,\mathrm{mean}_i\,\mathrm{softmax}(q_i k^\top s)_j`. Extra tokens (a class
    token) take part in the softmax, but their rows and columns are left out of the average, so the entries do not sum
    to one.

    Args:
        query (Tensor): Queries of the block, ``(B, heads, E + N, head_dim)``, the ``E`` extra tokens first.
        key (Tensor): Keys of the block, same shape.
        num_extra_tokens (int): ``E``. Defaults to 0.
        scale (float, optional): Factor on the products. Defaults to ``head_dim ** -0.5``.

    Returns:
        Tensor: ``(B, N)``, each entry in (0, 1), in float32 (float64 for float64 input).
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = (query[:, :, num_extra_tokens:] * scale) @ key.transpose(-2, -1)
    dtype = torch.promote_types(scores.dtype, torch.float32)
    received = scores.softmax(dim=-1, dtype=dtype).mean(dim=(1, 2))
    return received[:, num_extra_tokens:]


def class_attention(query: Tensor, key: Tensor, num_extra_tokens: int = 1, scale: float | None = None) -> Tensor:
    r"""Attention that the class token pays to every image token, averaged over heads.

    :math:`\mathrm{mean}_{heads}\,\mathrm{softmax}(q_0 k^\top s)_j`: all extra tokens take part in the softmax, but
    their columns are left out, so the entries do not sum to one.

    Args:
        query (Tensor): Queries of the block, ``(B, heads, Q, head_dim)``, the class token's first.
        key (Tensor): Keys of the block, ``(B, heads, E + N, head_dim)``, the ``E`` extra tokens first.
        num_extra_tokens (int): ``E``. Defaults to 1.
        scale (float, optional): Factor on the products. Defaults to ``head_dim ** -0.5``.

    Returns:
        Tensor: ``(B, N)``, each entry in (0, 1), in float32 (float64 for float64 input).
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = (query[:, :, :1] * scale) @ key.transpose(-2, -1)
    dtype = torch.promote_types(scores.dtype, torch.float32)
    return scores.softmax(dim=-1, dtype=dtype).mean(dim=(1, 2))[:, num_extra_tokens:]


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
