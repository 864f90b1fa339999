"""What a mixing method is."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from torch import Tensor, nn

from smmix_mm.streams import Streams
from smmix_mm.structures import Criterion, Features, MixedBatch, Motivation, RegionClassifier

if TYPE_CHECKING:
    from smmix_mm.adapters.base import Adapter


class Motivate(Protocol):
    """Asks the unmixed images what a method needs to know of them: evaluation mode, no trace left.

    Args:
        images (Tensor): The unmixed batch ``(B, C, H, W)``.
        attention (bool): Whether the attention is wanted. Defaults to True.
        logits (bool): Whether the logits are wanted. Defaults to True.
        class_map_of (Tensor, optional): Labels ``(B, classes)``: a map of each image's own class is wanted. Defaults
            to None.
        activation (bool): Whether the activation is wanted. Defaults to False. If nothing at all is, no model is run.
        by (str, optional): Who is asked: ``'model'``, the one under training; ``'teacher'``; None, the teacher if
            there is one and the model otherwise. Defaults to None.
        scale (float): Resolution of the pass as a part of the images', in (0, 1]; sides are rounded to the stride of
            the model that is asked, halves down. Defaults to 1.
        gradient_of (Callable, optional): A scalar of the logits: its gradient at the images is wanted, and no other's.
            Defaults to None.
        own_grid (bool): Whether the method mixes on a grid of its own: attention then stays on the grid of the model
            that is asked, and the sides of the images need not be multiples of a stride. Defaults to False.
        autocast (bool): Whether the pass runs under the training's autocast; False runs it in full precision.
            Defaults to True.
    """

    def __call__(
        self,
        images: Tensor,
        attention: bool = True,
        logits: bool = True,
        *,
        class_map_of: Tensor | None = None,
        activation: bool = False,
        by: str | None = None,
        scale: float = 1.0,
        gradient_of: Callable[[Tensor], Tensor] | None = None,
        own_grid: bool = False,
        autocast: bool = True,
    ) -> Motivation: ...


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
    adapter: 'Adapter'

    def criterion(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of logits ``(B, classes)`` under soft targets ``(B, classes)``."""


class MixingMethod(nn.Module, ABC):
    """Mixes a batch and says how the result is judged. It keeps no state from step to step but its parameters.

    Attributes:
        region_head: The region classifier that the method needs: ``'separate'``, a linear layer of its own beside
            the stock head; ``'shared'``, the stock head itself; or None.
        reads_class_attention: Whether :meth:`relabel` or :meth:`losses` need ``class_attention`` of the mixed images.
        asks_teacher: What the method asks of a teacher, if there is one: of ``'attention'``, ``'logits'``,
            ``'class_map'``, ``'activation'``.
        needs_teacher: Whether it cannot do without one.
    """

    region_head: str | None = None
    reads_class_attention: bool = False
    asks_teacher: tuple[str, ...] = ()
    needs_teacher: bool = False

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

    @abstractmethod
    def forward(self, images: Tensor, targets: Tensor, motivate: Motivate, streams: Streams) -> MixedBatch:
        """Mixes a batch.

        Args:
            images (Tensor): ``(B, C, H, W)``, preprocessed. May be written to.
            targets (Tensor): One-hot labels ``(B, classes)``, floating.
            motivate (Motivate): Asks the unmixed images.
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
