"""What travels between the rooms: from backbone to mixing to loss."""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

# The stock head's loss of logits (B, classes) under soft targets (B, classes): a scalar.
Criterion = Callable[[Tensor, Tensor], Tensor]

# Logits (B, classes) of mean tokens (B, C).
RegionClassifier = Callable[[Tensor], Tensor]


@dataclass
class Features:
    """What one run of a backbone gives, read through the adapter of its family.

    Attributes:
        feats: Exactly what the backbone returned, for the stock neck and head.
        tokens: Final normalised image tokens ``(B, h * w, C)``, without extra tokens, in row-major order.
        grid: Token grid ``(h, w)`` of the last block.
        attention: Image attention score of the last block ``(B, h, w)``, see
            :func:`smmix_mm.functional.image_attention`; None unless it was asked for.
        class_attention: What the class token attends to in the last block that has one ``(B, h, w)``, see
            :func:`smmix_mm.functional.class_attention`; the image attention score where images are not classified by a
            class token; None unless it was asked for. Neither attention carries gradients.
    """

    feats: tuple[Tensor, ...]
    tokens: Tensor
    grid: tuple[int, int]
    attention: Tensor | None = None
    class_attention: Tensor | None = None


@dataclass
class Motivation:
    """What the unmixed images tell a method before it mixes them.

    Attributes:
        grid: Token grid ``(h, w)`` of the model under training; of the model that motivates where the method has a grid
            of its own.
        attention: Image attention score ``(B, h, w)`` on that grid; None unless it was asked for.
        logits: ``(B, classes)``; None unless they were asked for.
        class_map: Score of the image's own class at each token ``(B, h', w')``, on the grid of the model that
            motivates; None unless it was asked for.
        activation: Channel mean of the final tokens ``(B, h', w')``, on that grid; None unless it was asked for.
        gradient: At the images ``(B, C, H, W)``; None unless it was asked for.
    """

    grid: tuple[int, int]
    attention: Tensor | None = None
    logits: Tensor | None = None
    class_map: Tensor | None = None
    activation: Tensor | None = None
    gradient: Tensor | None = None


@dataclass
class MixedBatch:
    """A mixed batch and what its method's losses need: the only thing that travels from mixing to loss.

    Attributes:
        images: ``(B, C, H, W)``; AutoMix has the unmixed batch after the mixed one, ``2 B`` images and labels.
        targets: Soft labels ``(B, classes)`` of the whole images.
        source_mask: ``(B, h, w)`` bool, True where source tokens were pasted.
        source_box: Top, left, bottom, right in pixels of the one box that was pasted into all images.
        source_targets: Labels ``(B, classes)`` of what was pasted.
        target_targets: Labels ``(B, classes)`` of what it was pasted into.
        expected: Probabilities ``(B, classes)`` that the prediction of the mixed image should be consistent with.
        losses: Scalars that a method settled while it mixed, under names that begin with ``loss_``.
    """

    images: Tensor
    targets: Tensor
    source_mask: Tensor | None = None
    source_box: tuple[int, int, int, int] | None = None
    source_targets: Tensor | None = None
    target_targets: Tensor | None = None
    expected: Tensor | None = None
    losses: dict[str, Tensor] = field(default_factory=dict)
