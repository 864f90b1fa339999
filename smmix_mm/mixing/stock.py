"""mmpretrain's batch augmentations, and the unmixed batch, as methods."""

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
    """Leaves the batch unmixed, in the steps that no other method is drawn for."""

    def forward(self, images: Tensor, targets: Tensor, answers: Answers, streams: Streams) -> MixedBatch:
        return MixedBatch(images, targets, share=0.0)


class _PermutationsOnDevice(TorchFunctionMode):
    """Copies the results of ``torch.randperm``, which are still drawn on the host, to a device without waiting.

    Stock augmentations index images on the device by them; indexing from the host would wait for the device. An
    augmentation that uses a permutation on the host, for example to index a NumPy array, is not supported on a GPU.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, func: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        return to_device(result, self.device) if func is torch.randperm and result.device.type == 'cpu' else result
