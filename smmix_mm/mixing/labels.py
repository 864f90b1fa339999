"""How the label of a mixed image is shared out between its two images, where the area is not all that counts.

By area it is :func:`smmix_mm.functional.mix_pairs`.
"""

from torch import Tensor

from smmix_mm import functional
from smmix_mm.structures import Features, MixedBatch


def label_by_attention(features: Features, mixed: MixedBatch) -> Tensor:
    """The mean of the area and of the mixed image's own attention inside the region.

    `TransMix: Attend to Mix for Vision Transformers <https://arxiv.org/abs/2111.09833>`_, equation 5 and section 3.3.

    Args:
        features (Features): Of the mixed images, with ``class_attention``.
        mixed (MixedBatch): With ``share``, ``source_targets``, ``target_targets`` and ``source_mask`` or
            ``source_box``.

    Returns:
        Tensor: Soft labels ``(B, classes)``, without gradients.
    """
    attention, mask = features.class_attention, mixed.source_mask
    if mask is None:
        size, grid = tuple(mixed.images.shape[-2:]), tuple(attention.shape[-2:])
        mask = functional.box_mask(mixed.source_box, size, grid, attention.device)
    return functional.attended_labels(mixed.source_targets, mixed.target_targets, attention, mask, mixed.share)


def label_by_content(targets: Tensor, class_map: Tensor, cut: Tensor, pasted: Tensor, smoothing: float = 0.0) -> Tensor:
    r"""Shares by what is left of each image's own content: the source's inside its cut, the target's beside the paste.

    `TokenMix: Rethinking Image Mixing for Data Augmentation in Vision Transformers
    <https://arxiv.org/abs/2207.08409>`_, section 3.2. Image ``B - 1 - b`` is the source of image ``b``.

    Args:
        targets (Tensor): Labels ``(B, classes)`` of the unmixed images.
        class_map (Tensor): Scores ``(B, h', w')`` of each unmixed image's own class, on any grid.
        cut (Tensor): ``(h, w)`` or ``(B, h, w)``, True where in its source comes from what was pasted.
        pasted (Tensor): Same shape, True where it was pasted.
        smoothing (float): :math:`\epsilon` of the criterion: the labels are :math:`(s - \epsilon / 2) /
            (1 - \epsilon)` of the shares :math:`s`. Defaults to 0.

    Returns:
        Tensor: ``(B, classes)``; its rows need not sum to 1.
    """
    content = functional.content_map(class_map, tuple(cut.shape[-2:]))
    source = functional.attention_share(content.flip(0), cut).unsqueeze(1)
    target = 1 - functional.attention_share(content, pasted).unsqueeze(1)
    labels = (source - smoothing / 2) * targets.flip(0) + (target - smoothing / 2) * targets
    return labels / (1 - smoothing)
