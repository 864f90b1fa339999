"""Shares of labels."""

import torch
from torch import Tensor

from .attention import resample_scores
from .regions import Region


def region_share(region: Region, grid: tuple[int, int]) -> float:
    """The source's share of the area: region tokens over all tokens, in (0, 1]."""
    return region[0] * region[1] / (grid[0] * grid[1])


def mix_pairs(values: Tensor, share: float | Tensor, pairs: Tensor | None = None) -> Tensor:
    """Mixes a per-image quantity of each target with that of its source: ``share * source + (1 - share) * target``.

    Args:
        values (Tensor): ``(B, ...)``, such as one-hot labels, logits or probabilities.
        share (float | Tensor): The source's share in [0, 1]: a number, or a tensor that broadcasts to ``values``.
        pairs (Tensor, optional): ``(B,)`` int64, the source of each image. Defaults to None, the reversed batch.

    Returns:
        Tensor: Same shape.
    """
    sources = values.flip(0) if pairs is None else values[pairs]
    return share * sources + (1 - share) * values


def attention_share(attention: Tensor, mask: Tensor) -> Tensor:
    r"""The part of an image's attention that lies inside a mask: :math:`\sum_j m_j a_j / \sum_j a_j`.

    `TransMix: Attend to Mix for Vision Transformers <https://arxiv.org/abs/2111.09833>`_, equation 5.

    Args:
        attention (Tensor): ``(B, h, w)``, not negative, not all zero.
        mask (Tensor): ``(B, h, w)`` or ``(h, w)``, bool.

    Returns:
        Tensor: ``(B,)``, in [0, 1].
    """
    return (attention * mask).flatten(1).sum(1) / attention.flatten(1).sum(1)


def attended_labels(
    source_targets: Tensor, target_targets: Tensor, attention: Tensor, mask: Tensor, area_share: float | Tensor
) -> Tensor:
    r"""Mixed labels in which the source's share is the mean of its part of the area and its part of the attention.

    `TransMix: Attend to Mix for Vision Transformers <https://arxiv.org/abs/2111.09833>`_.

    Args:
        source_targets (Tensor): Labels ``(B, classes)`` of the sources.
        target_targets (Tensor): Labels ``(B, classes)`` of the targets.
        attention (Tensor): Attention of the mixed images ``(B, h, w)``, as in :func:`attention_share`.
        mask (Tensor): ``(B, h, w)`` or ``(h, w)`` bool, True where source tokens were pasted.
        area_share (float | Tensor): The source's part of the area, in [0, 1]: one number, or ``(B, 1)``.

    Returns:
        Tensor: ``(B, classes)``.
    """
    share = (area_share + attention_share(attention, mask).unsqueeze(1)) / 2
    return share * source_targets + (1 - share) * target_targets


def content_map(scores: Tensor, grid: tuple[int, int]) -> Tensor:
    """Turns scores of an image's own class into a distribution over a grid.

    `TokenMix: Rethinking Image Mixing for Data Augmentation in Vision Transformers <https://arxiv.org/abs/2207.08409>`_:
    scores are clamped at 0, raised by 1e-8 (an all-zero map becomes uniform), resampled to the grid and divided by
    their sum.

    Args:
        scores (Tensor): ``(B, h', w')``.
        grid (tuple[int, int]): ``(h, w)``.

    Returns:
        Tensor: ``(B, h, w)``, summing to 1 for each image, float32 or wider.
    """
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32)).clamp(min=0) + 1e-8
    scores = resample_scores(scores, grid)
    return scores / scores.sum(dim=(1, 2), keepdim=True)
