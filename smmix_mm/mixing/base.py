"""What a mixing method is."""

from abc import ABC, abstractmethod
from typing import Protocol

from torch import Tensor, nn

from smmix_mm.adapters.base import Adapter
from smmix_mm.streams import Streams
from smmix_mm.structures import Criterion, Features, MixedBatch, Motivation, Question, RegionClassifier

# What the questions of a method were answered, in the order of the questions.
Answers = tuple[Motivation, ...]


class TrainedModel(Protocol):
    """The model under training, as far as methods know it: a :class:`smmix_mm.MixingClassifier`.

    Attributes:
        backbone, neck, head, data_preprocessor: As in mmpretrain's ``ImageClassifier``.
        with_neck: Whether there is a neck.
        adapter: That of the backbone.
    """

    backbone: nn.Module
    neck: nn.Module | None
    head: nn.Module
    data_preprocessor: nn.Module
    with_neck: bool
    adapter: Adapter


class MixingMethod(nn.Module, ABC):
    """Mixes a batch and says how the result is judged. It keeps no state from step to step but its parameters.

    Attributes:
        region_head: The region classifier that the method needs: ``'separate'``, a linear layer of its own beside
            the stock head; ``'shared'``, the stock head itself; or None.
        reads_class_attention: Whether :meth:`relabel` or :meth:`losses` need ``class_attention`` of the mixed images.
        questions: What the method asks of the unmixed images, one question for each model that it asks. The classifier
            settles who is asked, see :func:`smmix_mm.structures.settle_questions`.
    """

    region_head: str | None = None
    reads_class_attention: bool = False
    questions: tuple[Question, ...] = ()

    def prepare(self, model: TrainedModel) -> None:
        """Called once, when the classifier around the method is complete: checks, or copies, what it needs of it.

        Args:
            model (TrainedModel): The classifier, not yet with its first weights.

        Raises:
            ValueError: If the method cannot train this model.
        """

    def own_heads(self) -> list[nn.Module]:
        """Heads that the method has beside the model's, which are to begin as the model's own does."""
        return []

    def before_step(self, model: TrainedModel, progress: float) -> None:
        """Called before each step of the method, such as to move an average of the model.

        Args:
            model (TrainedModel): The classifier.
            progress (float): How much of the run is over, from 0 to 1.
        """

    @abstractmethod
    def forward(self, images: Tensor, targets: Tensor, answers: Answers, streams: Streams) -> MixedBatch:
        """Mixes a batch.

        Args:
            images (Tensor): ``(B, C, H, W)``, preprocessed. May be written to.
            targets (Tensor): One-hot labels ``(B, classes)``, floating.
            answers (tuple[Motivation, ...]): What the :attr:`questions` were answered, one for each of them.
            streams (Streams): The randomness of this step.

        Returns:
            MixedBatch: The mixed batch, with what :meth:`relabel` and :meth:`losses` need.
        """

    def relabel(self, features: Features, mixed: MixedBatch) -> Tensor:
        """Soft labels of the mixed images, once the model has seen them.

        Args:
            features (Features): What the backbone gave for them.
            mixed (MixedBatch): What :meth:`forward` returned.

        Returns:
            Tensor: ``(B, classes)``, without gradients; those of :meth:`forward` unless a method knows better by now.
        """
        return mixed.targets

    def losses(
        self,
        logits: Tensor,
        features: Features,
        mixed: MixedBatch,
        criterion: Criterion,
        classify_regions: RegionClassifier | None,
    ) -> dict[str, Tensor]:
        """Losses of the mixed batch: the criterion under the soft labels, unless a method has more to ask.

        Args:
            logits (Tensor): ``(B, classes)`` of the mixed images.
            features (Features): What the backbone gave for them.
            mixed (MixedBatch): What :meth:`forward` returned, with the labels of :meth:`relabel`.
            criterion (Criterion): The stock head's.
            classify_regions (RegionClassifier, optional): As :attr:`region_head` asks for it.

        Returns:
            dict[str, Tensor]: Scalars under names that begin with ``loss_``; their sum is trained.
        """
        return {'loss_cls': criterion(logits, mixed.targets)}
