"""mmpretrain's own batch augmentations, and none at all, as methods."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from smmix_mm.streams import Streams, seeded_globals, to_device
from smmix_mm.structures import MixedBatch

from .base import Answers, MixingMethod


class StockMixing(MixingMethod):
    """One of mmpretrain's batch augmentations (``Mixup``, ``CutMix``, ``ResizeMix``), unchanged.

    Its draws come from the local stream instead of the global random state.

    Args:
        augment (Callable): Takes images and one-hot labels, returns both mixed.
    """

    def __init__(self, augment: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.augment = augment

    def forward(self, images: Tensor, targets: Tensor, answers: Answers, streams: Streams) -> MixedBatch:
        with seeded_globals(streams.local), _PermutationsOnDevice(images.device):
            return MixedBatch(*self.augment(images, targets))

    def extra_repr(self) -> str:
        return type(self.augment).__name__


class Unmixed(MixingMethod):
    """Leaves the batch as it is: the steps that the probabilities leave over."""

    def forward(self, images: Tensor, targets: Tensor, answers: Answers, streams: Streams) -> MixedBatch:
        return MixedBatch(images, targets, share=0.0)


class _PermutationsOnDevice(TorchFunctionMode):
    """Has what ``torch.randperm`` draws, on the host as ever, sent to a device without waiting for it.

    Stock augmentations index the images of a device by it; from the host that would wait until the device is done. One
    that uses a permutation on the host, such as to index a NumPy array, is therefore not supported on a GPU.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, func: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        return to_device(result, self.device) if func is torch.randperm and result.device.type == 'cpu' else result
