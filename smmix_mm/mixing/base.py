"""Base class of mixing methods."""

from abc import ABC, abstractmethod
from typing import Protocol

from torch import Tensor, nn

from smmix_mm.adapters.base import Adapter
from smmix_mm.streams import Streams
from smmix_mm.structures import Criterion, Features, MixedBatch, Motivation, Question, RegionClassifier

# Answers to the questions of a method, in the order of the questions.
Answers = tuple[Motivation, ...]


class TrainedModel(Protocol):
    """The model under training, with the attributes that methods use: a :class:`smmix_mm.MixingClassifier`.

    Attributes:
        backbone, neck, head, data_preprocessor: As in mmpretrain's ``ImageClassifier``.
        with_neck: Whether there is a neck.
        adapter: Adapter of the backbone.
    """

    backbone: nn.Module
    neck: nn.Module | None
    head: nn.Module
    data_preprocessor: nn.Module
    with_neck: bool
    adapter: Adapter


class MixingMethod(nn.Module, ABC):
    """Mixes a batch and computes its losses. Apart from its parameters it keeps no state between steps.

    Attributes:
        region_head: The region classifier that the method needs: ``'separate'``, a linear layer of its own beside
            the stock head; ``'shared'``, the stock head itself; or None.
        reads_class_attention: Whether :meth:`relabel` or :meth:`losses` need ``class_attention`` of the mixed images.
        questions: Questions of the method about the unmixed images, one for each model that it asks. The classifier
            decides which model answers, see :func:`smmix_mm.structures.settle_questions`.
    """

    region_head: str | None = None
    reads_class_attention: bool = False
    questions: tuple[Question, ...] = ()

    def prepare(self, model: TrainedModel) -> None:
        """Checks or copies what the method needs of the classifier. Called once, when the classifier is complete.

        Args:
            model (TrainedModel): The classifier, before its weights are initialised.

        Raises:
            ValueError: If the method cannot train this model.
        """

    def own_heads(self) -> list[nn.Module]:
        """Additional heads of the method, to be initialised like the model's own head."""
        return []

    def before_step(self, model: TrainedModel, progress: float) -> None:
        """Called before each step of the method, for example to update a moving average of the model.

        Args:
            model (TrainedModel): The classifier.
            progress (float): Completed part of the run, from 0 to 1.
        """

    @abstractmethod
    def forward(self, images: Tensor, targets: Tensor, answers: Answers, streams: Streams) -> MixedBatch:
        """Mixes a batch.

        Args:
            images (Tensor): ``(B, C, H, W)``, preprocessed. May be written to.
            targets (Tensor): One-hot labels ``(B, classes)``, floating.
            answers (tuple[Motivation, ...]): Answers to the :attr:`questions`, one for each.
            streams (Streams): The randomness of this step.

        Returns:
            MixedBatch: The mixed batch, with what :meth:`relabel` and :meth:`losses` need.
        """

    def relabel(self, features: Features, mixed: MixedBatch) -> Tensor:
        """Soft labels of the mixed images, after the forward of the model.

        Args:
            features (Features): The backbone's outputs for the mixed images.
            mixed (MixedBatch): The batch that :meth:`forward` returned.

        Returns:
            Tensor: ``(B, classes)``, without gradients. By default the labels of :meth:`forward`.
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
        """Losses of the mixed batch. By default the criterion under the soft labels.

        Args:
            logits (Tensor): ``(B, classes)`` of the mixed images.
            features (Features): The backbone's outputs for the mixed images.
            mixed (MixedBatch): The batch that :meth:`forward` returned, with the labels of :meth:`relabel`.
            criterion (Criterion): The stock head's loss.
            classify_regions (RegionClassifier, optional): The region classifier chosen by :attr:`region_head`.

        Returns:
            dict[str, Tensor]: Scalars under names that begin with ``loss_``; the training loss is their sum.
        """
        return {'loss_cls': criterion(logits, mixed.targets)}
