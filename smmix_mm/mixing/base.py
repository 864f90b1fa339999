"""What a mixing method is."""

from abc import ABC, abstractmethod
from typing import Protocol

from torch import Tensor, nn

from smmix_mm.structures import Criterion, Features, MixedBatch, Motivation, RegionClassifier

from .streams import Streams


class Motivate(Protocol):
    """Asks the unmixed images what a method needs to know of them.

    Args:
        images (Tensor): The unmixed batch ``(B, C, H, W)``.
        attention (bool): Whether the attention is wanted. Defaults to True.
        logits (bool): Whether the logits are wanted. Defaults to True. If neither is, the model is not run.
        autocast (bool): Whether the pass runs under the training's autocast; False runs it in full precision.
            Defaults to True.
    """

    def __call__(
        self, images: Tensor, attention: bool = True, logits: bool = True, autocast: bool = True
    ) -> Motivation: ...


class MixingMethod(nn.Module, ABC):
    """Mixes a batch and says how the result is judged. It keeps no state from step to step.

    Attributes:
        region_head: The region classifier that the method needs: ``'separate'``, a linear layer of its own beside
            the stock head; ``'shared'``, the stock head itself; or None.
    """

    region_head: str | None = None

    @abstractmethod
    def forward(self, images: Tensor, targets: Tensor, motivate: Motivate, streams: Streams) -> MixedBatch:
        """Mixes a batch.

        Args:
            images (Tensor): ``(B, C, H, W)``, preprocessed. May be written to.
            targets (Tensor): One-hot labels ``(B, classes)``, floating.
            motivate (Motivate): Asks the unmixed images.
            streams (Streams): The randomness of this step.

        Returns:
            MixedBatch: The mixed batch, with what :meth:`losses` needs.
        """

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
            mixed (MixedBatch): What :meth:`forward` returned.
            criterion (Criterion): The stock head's.
            classify_regions (RegionClassifier, optional): As :attr:`region_head` asks for it.

        Returns:
            dict[str, Tensor]: Scalars under names that begin with ``loss_``; their sum is trained.
        """
        return {'loss_cls': criterion(logits, mixed.targets)}
