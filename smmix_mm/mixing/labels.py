"""Labels of mixed images whose shares depend on more than the area.

For shares by area see :func:`smmix_mm.functional.mix_pairs`.
"""

from torch import Tensor

from smmix_mm import functional
from smmix_mm.structures import Features, MixedBatch


def label_by_attention(features: Features, mixed: MixedBatch) -> Tensor:
    """Labels by the mean of the region's part of the area and its part of the mixed image's own attention.

    `TransMix: Attend to Mix for Vision Transformers <https://arxiv.org/abs/2111.09833>`_, equation 5 and section 3.3.

    Args:
        features (Features): Features of the mixed images, with ``class_attention``.
        mixed (MixedBatch): The mixed batch, with ``share``, ``source_targets``, ``target_targets`` and ``source_mask``
            or ``source_box``.

    Returns:
        Tensor: Soft labels ``(B, classes)``, without gradients.
    """
    attention, mask = features.class_attention, mixed.source_mask
    if mask is None:
        size, grid = tuple(mixed.images.shape[-2:]), tuple(attention.shape[-2:])
        mask = functional.box_mask(mixed.source_box, size, grid, attention.device)
    return functional.attended_labels(mixed.source_targets, mixed.target_targets, attention, mask, mixed.share)


def label_by_content(targets: Tensor, class_map: Tensor, cut: Tensor, pasted: Tensor, smoothing: float = 0.0) -> Tensor:
    r"""Labels by the visible content: the source's inside the region that is cut, the target's outside the pasted one.

    `TokenMix: Rethinking Image Mixing for Data Augmentation in Vision Transformers
    <https://arxiv.org/abs/2207.08409>`_, section 3.2. Image ``B - 1 - b`` is the source of image ``b``.

    Args:
        targets (Tensor): Labels ``(B, classes)`` of the unmixed images.
        class_map (Tensor): Scores ``(B, h', w')`` of each unmixed image's own class, on any grid.
        cut (Tensor): ``(h, w)`` or ``(B, h, w)``, True in the source where the region is cut.
        pasted (Tensor): Same shape, True in the target where it is pasted.
        smoothing (float): :math:`\epsilon` of the criterion: a share :math:`s` becomes the label
            :math:`(s - \epsilon / 2) / (1 - \epsilon)`. Defaults to 0.

    Returns:
        Tensor: ``(B, classes)``; its rows need not sum to 1.
    """
    content = functional.content_map(class_map, tuple(cut.shape[-2:]))
    source = functional.attention_share(content.flip(0), cut).unsqueeze(1)
    target = 1 - functional.attention_share(content, pasted).unsqueeze(1)
    labels = (source - smoothing / 2) * targets.flip(0) + (target - smoothing / 2) * targets
    return labels / (1 - smoothing)
