"""What travels between the packages: from backbone to mixing to loss."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

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
        pooled: What the stock neck made of ``feats``, or ``feats`` where there is none: the head's input. The
            classifier adds it.
        class_attention: What the class token attends to in the last block that has one ``(B, h, w)``, see
            :func:`smmix_mm.functional.class_attention`; the image attention score where images are not classified by a
            class token; None unless it was asked for. Neither attention carries gradients.
    """

    feats: tuple[Tensor, ...]
    tokens: Tensor
    grid: tuple[int, int]
    attention: Tensor | None = None
    class_attention: Tensor | None = None
    pooled: Tensor | tuple[Tensor, ...] | None = None


# A scalar of the logits (B, classes) and the labels (B, classes).
LogitLoss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Question:
    """What a method asks one model about the unmixed images. By default nothing, and no model is run.

    Attributes:
        attention: Whether the image attention score is wanted.
        logits: Whether the logits are wanted.
        class_map: Whether a map of each image's own class is wanted.
        activation: Whether the channel mean of the final tokens is wanted.
        input_gradient: A scalar whose gradient at the images is wanted, and no other's.
        by: Who is asked: ``'model'``, the one under training; ``'teacher'``; None, the teacher if there is one and the
            model otherwise.
        scale: Resolution of the pass as a part of the images', in (0, 1]; sides are rounded to the stride of the model
            that is asked, halves down.
        own_grid: Whether the method mixes on a grid of its own: attention then stays on the grid of the model that is
            asked, and the sides of the images need not be multiples of a stride.
        autocast: Whether the pass runs under the training's autocast; False runs it in full precision.
    """

    attention: bool = False
    logits: bool = False
    class_map: bool = False
    activation: bool = False
    input_gradient: LogitLoss | None = None
    by: str | None = None
    scale: float = 1.0
    own_grid: bool = False
    autocast: bool = True

    @property
    def asked(self) -> tuple[str, ...]:
        """Names of what is wanted, those of :class:`Motivation`'s attributes."""
        wanted = {name: getattr(self, name) for name in ('attention', 'logits', 'class_map', 'activation')}
        wanted['input_gradient'] = self.input_gradient is not None
        return tuple(name for name, is_wanted in wanted.items() if is_wanted)

    @property
    def needs_teacher(self) -> bool:
        """Whether it cannot be answered without a teacher."""
        return self.by == 'teacher' and bool(self.asked)


def settle_questions(questions: Iterable[Question], has_teacher: bool) -> tuple[Question, ...]:
    """Says who is asked, and makes one question of all that go to the same model, so that it is run once.

    Args:
        questions (Iterable[Question]): Of one method.
        has_teacher (bool): Whether there is a teacher.

    Returns:
        tuple[Question, ...]: As many, in the same order; those to one model are the same. ``scale`` and ``autocast``
        are those of the first one.
    """
    settled = [
        question if question.by else replace(question, by='teacher' if has_teacher else 'model')
        for question in questions
    ]
    merged: dict[str, Question] = {}
    for question in settled:
        first = merged.setdefault(question.by, question)
        merged[question.by] = replace(first, **{name: getattr(question, name) for name in question.asked})
    return tuple(merged[question.by] for question in settled)


@dataclass
class Motivation:
    """What the unmixed images tell a method before it mixes them: the answer to a :class:`Question`.

    Attributes:
        grid: Token grid ``(h, w)`` of the model under training; of the model that motivates where the method has a grid
            of its own.
        attention: Image attention score ``(B, h, w)`` on that grid; None unless it was asked for.
        logits: ``(B, classes)``; None unless they were asked for.
        class_map: Score of the image's own class at each token ``(B, h', w')``, on the grid of the model that
            motivates; None unless it was asked for.
        activation: Channel mean of the final tokens ``(B, h', w')``, on that grid; None unless it was asked for.
        input_gradient: At the images ``(B, C, H, W)``; None unless it was asked for.
    """

    grid: tuple[int, int]
    attention: Tensor | None = None
    logits: Tensor | None = None
    class_map: Tensor | None = None
    activation: Tensor | None = None
    input_gradient: Tensor | None = None


@dataclass
class MixedBatch:
    """A mixed batch and what its method's losses need: the only thing that travels from mixing to loss.

    Attributes:
        images: ``(B, C, H, W)``; AutoMix has the unmixed batch after the mixed one, ``2 B`` images and labels.
        targets: Soft labels ``(B, classes)`` of the whole images.
        share: The source's part of the area, one number or one for each image ``(B, 1)``; None where a stock
            augmentation does not tell it.
        source_mask: ``(B, h, w)`` bool, True where source tokens were pasted.
        source_box: Top, left, bottom, right in pixels of the one box that was pasted into all images.
        source_targets: Labels ``(B, classes)`` of what was pasted.
        target_targets: Labels ``(B, classes)`` of what it was pasted into.
        expected: Probabilities ``(B, classes)`` that the prediction of the mixed image should be consistent with.
        losses: Scalars that a method computed while it mixed, under names that begin with ``loss_``.
    """

    images: Tensor
    targets: Tensor
    share: float | Tensor | None = None
    source_mask: Tensor | None = None
    source_box: tuple[int, int, int, int] | None = None
    source_targets: Tensor | None = None
    target_targets: Tensor | None = None
    expected: Tensor | None = None
    losses: dict[str, Tensor] = field(default_factory=dict)
