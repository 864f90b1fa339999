"""Data structures passed from backbone to mixing to loss."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from torch import Tensor

# The stock head's loss of logits (B, classes) under soft targets (B, classes): a scalar.
Criterion = Callable[[Tensor, Tensor], Tensor]

# Logits (B, classes) of mean tokens (B, C).
RegionClassifier = Callable[[Tensor], Tensor]


@dataclass
class Features:
    """Outputs of one run of a backbone, read by the adapter of its family.

    Attributes:
        feats: Exactly what the backbone returned, for the stock neck and head.
        tokens: Final normalised image tokens ``(B, h * w, C)``, or the places of the last feature map, without extra
            tokens, in row-major order.
        grid: Token grid ``(h, w)`` of the last block.
        attention: Image attention score of the last block ``(B, h, w)``, see
            :func:`smmix_mm.functional.image_attention`; None unless it was asked for.
        pooled: The head's input: ``feats`` after the stock neck, or ``feats`` if there is no neck. The classifier adds
            it.
        class_attention: The class token's attention ``(B, h, w)`` in the last block that has one, see
            :func:`smmix_mm.functional.class_attention`; the image attention score where images are not classified by a
            class token; None unless it was asked for. Neither attention carries gradients. In backbones without
            attention :func:`smmix_mm.functional.activation_score` takes the place of both.
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
    """What a method asks one model about the unmixed images. By default it asks nothing, and no model is run.

    Attributes:
        attention: Whether the image attention score is wanted, or what takes its place.
        score: What is given as attention: ``'attention'``; ``'activation'``, the energy of the final tokens, or in
            backbones without attention what their adapter reads, see :func:`smmix_mm.functional.activation_score`;
            ``'class_activation'``, the scores of the predicted class at the tokens, see
            :func:`smmix_mm.functional.class_activation_score`; None, what the adapter reads.
        logits: Whether the logits are wanted.
        class_map: Whether a map of each image's own class is wanted.
        activation: Whether the channel mean of the final tokens is wanted.
        input_gradient: The scalar whose gradient with respect to the images is wanted, if any.
        by: The model that is asked: ``'model'``, the one under training; ``'teacher'``; None, the teacher if there is
            one and the model otherwise.
        scale: Resolution of the pass relative to the images', in (0, 1]; sides are rounded to the stride of the model
            that is asked, halves down.
        own_grid: Whether the method mixes on a grid of its own: attention then stays on the grid of the model that is
            asked, and the sides of the images need not be multiples of a stride.
        autocast: Whether the pass runs under the training's autocast; False runs it in full precision.
    """

    attention: bool = False
    score: str | None = None
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
        """Names of the attributes of :class:`Motivation` that are wanted."""
        wanted = {name: getattr(self, name) for name in ('attention', 'logits', 'class_map', 'activation')}
        wanted['input_gradient'] = self.input_gradient is not None
        return tuple(name for name, is_wanted in wanted.items() if is_wanted)

    @property
    def needs_teacher(self) -> bool:
        """Whether only a teacher can answer the question."""
        return self.by == 'teacher' and bool(self.asked)


def settle_questions(questions: Iterable[Question], has_teacher: bool) -> tuple[Question, ...]:
    """Decides which model answers each question, and merges the questions to one model, so that it is run once.

    Args:
        questions (Iterable[Question]): The questions of one method.
        has_teacher (bool): Whether there is a teacher.

    Returns:
        tuple[Question, ...]: As many questions, in the same order; those to one model are equal. ``scale`` and
        ``autocast`` are those of the first question to that model.
    """
    settled = [
        question if question.by else replace(question, by='teacher' if has_teacher else 'model')
        for question in questions
    ]
    merged: dict[str, Question] = {}
    for question in settled:
        first = merged.setdefault(question.by, question)
        asked = (*question.asked, 'score') if question.attention else question.asked
        merged[question.by] = replace(first, **{name: getattr(question, name) for name in asked})
    return tuple(merged[question.by] for question in settled)


@dataclass
class Motivation:
    """What the unmixed images tell a method before it mixes them: the answer to a :class:`Question`.

    Attributes:
        grid: Token grid ``(h, w)`` of the model under training, or of the model that was asked if the method has a grid
            of its own.
        attention: Image attention score ``(B, h, w)`` on that grid, or what the question's ``score`` names; None unless
            it was asked for.
        logits: ``(B, classes)``; None unless they were asked for.
        class_map: Score of the image's own class at each token ``(B, h', w')``, on the grid of the model that was
            asked; None unless it was asked for.
        activation: Channel mean of the final tokens ``(B, h', w')``, on that grid; None unless it was asked for.
        input_gradient: Gradient with respect to the images ``(B, C, H, W)``; None unless it was asked for.
    """

    grid: tuple[int, int]
    attention: Tensor | None = None
    logits: Tensor | None = None
    class_map: Tensor | None = None
    activation: Tensor | None = None
    input_gradient: Tensor | None = None


@dataclass
class MixedBatch:
    """A mixed batch, with everything that its method's losses need.

    Attributes:
        images: ``(B, C, H, W)``; AutoMix has the unmixed batch after the mixed one, ``2 B`` images and labels.
        targets: Soft labels ``(B, classes)`` of the whole images.
        share: The source's part of the area, one number, possibly a tensor ``()``, or one for each image ``(B, 1)``;
            None where a stock augmentation does not return it.
        source_mask: Where the source was pasted: ``(B, h, w)``, or ``(h, w)`` for all images, of tokens, of pixels or
            of any grid that divides the images. Bool, or the source's part from 0 to 1 where images are blended. None
            where ``source_box`` says it, where no region was pasted, and for stock augmentations.
        source_corners: ``(B, 2)``, row and column of the first token of the window that was cut from each source, of
            the size of the one that was pasted; not needed by losses, but shown in pictures.
        source_box: Top, left, bottom, right in pixels of the one box that was pasted into all images.
        source_targets: Labels ``(B, classes)`` of the sources.
        target_targets: Labels ``(B, classes)`` of the targets.
        expected: Probabilities ``(B, classes)`` that the prediction of the mixed image should be consistent with.
        losses: Scalars that a method computed while mixing, under names that begin with ``loss_``.
    """

    images: Tensor
    targets: Tensor
    share: float | Tensor | None = None
    source_mask: Tensor | None = None
    source_corners: Tensor | None = None
    source_box: tuple[int, int, int, int] | None = None
    source_targets: Tensor | None = None
    target_targets: Tensor | None = None
    expected: Tensor | None = None
    losses: dict[str, Tensor] = field(default_factory=dict)
