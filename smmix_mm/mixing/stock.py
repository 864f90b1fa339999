"""mmpretrain's own batch augmentations, and none at all, as methods."""

from collections.abc import Callable

from torch import Tensor

from smmix_mm.streams import Streams, seeded_globals
from smmix_mm.structures import MixedBatch

from .base import MixingMethod, Motivate


class StockMixing(MixingMethod):
    """One of mmpretrain's batch augmentations (``Mixup``, ``CutMix``, ``ResizeMix``), unchanged.

    Its draws come from the local stream instead of the global random state.

    Args:
        augment (Callable): Takes images and one-hot labels, returns both mixed.
    """

    def __init__(self, augment: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.augment = augment

    def forward(self, images: Tensor, targets: Tensor, motivate: Motivate, streams: Streams) -> MixedBatch:
        with seeded_globals(streams.local):
            return MixedBatch(*self.augment(images, targets))

    def extra_repr(self) -> str:
        return type(self.augment).__name__


class Unmixed(MixingMethod):
    """Leaves the batch as it is: the steps that the probabilities leave over."""

    def forward(self, images: Tensor, targets: Tensor, motivate: Motivate, streams: Streams) -> MixedBatch:
        return MixedBatch(images, targets)
