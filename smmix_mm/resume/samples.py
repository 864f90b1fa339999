"""Batches that depend only on seed, epoch and sample: the same after a resume and with any number of workers."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.dist import get_dist_info
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, get_worker_info

from smmix_mm.datasets.replacement import read_or_replace
from smmix_mm.streams import sample_stream, seed_globals, seeded_globals

from .interruption import shield_loader


class SampleKey(int):
    """The index of a sample together with the seeds of its augmentation.

    Args:
        index (int): Index of the sample in the dataset.
        seed (int): Seed of the run.
        epoch (int): Number of the pass over the data.
        position (int, optional): As in :func:`smmix_mm.streams.sample_stream`. Defaults to None.
    """

    def __new__(cls, index: int, seed: int, epoch: int, position: int | None = None) -> 'SampleKey':
        key = super().__new__(cls, index)
        key.seed, key.epoch, key.position = seed, epoch, position
        return key

    def __reduce__(self) -> tuple:
        return SampleKey, (int(self), self.seed, self.epoch, self.position)

    def stream(self) -> np.random.Generator:
        """Returns the stream that the augmentation draws from."""
        return sample_stream(self.seed, self.epoch, int(self), self.position)


class SeededDataset(Dataset):
    """A dataset whose samples depend on their key only, and which replaces unreadable samples by readable ones.

    See :func:`smmix_mm.datasets.replacement.read_or_replace` for the replacement. All attributes are those of the
    wrapped dataset; plain indices return its plain samples.

    Args:
        dataset (Dataset): A map-style dataset.

    Raises:
        UnreadableImageError: From indexing, if too many images in a row are unreadable, or if the sample has no data
            sample to mark as replaced.
    """

    def __init__(self, dataset: Dataset) -> None:
        # Not by assignment, which goes to the wrapped dataset.
        self.__dict__['wrapped'] = dataset

    def __getattr__(self, name: str) -> Any:
        # Copying and unpickling access attributes before the dataset is set.
        if name.startswith('__') or 'wrapped' not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.wrapped, name)

    def __setattr__(self, name: str, value: Any) -> None:
        # Hooks that replace the pipeline during a run mean the wrapped dataset's.
        setattr(self.wrapped, name, value)

    def __reduce__(self) -> tuple:
        return SeededDataset, (self.wrapped,)

    def __len__(self) -> int:
        return len(self.wrapped)

    def __getitem__(self, key: int) -> Any:
        if not isinstance(key, SampleKey):
            return self.wrapped[key]
        stream = key.stream()
        if get_worker_info() is None:
            with seeded_globals(stream):
                return read_or_replace(self.wrapped, int(key), stream)
        # Nothing else draws in a worker, and restoring NumPy's state takes longer than all other steps.
        seed_globals(stream)
        return read_or_replace(self.wrapped, int(key), stream)


class KeyedBatches:
    """A batch sampler that yields another one's indices as keys, and can skip the first batches.

    Args:
        batches (BatchSampler): Has the attributes ``sampler`` and ``batch_size``.
        seed (int): Seed of the run; may be set until the first iteration.
        endless (bool): Whether to repeat passes over the data for ever. Defaults to False.

    Attributes:
        epoch (int, optional): Epoch of the next iteration; unused if endless. None takes the sampler's.
    """

    def __init__(self, batches: BatchSampler, seed: int, endless: bool = False) -> None:
        self.batches = batches
        self.seed = seed
        self.endless = endless
        self.epoch: int | None = None
        self.left_out = 0

    @property
    def sampler(self) -> Iterable[int]:
        return self.batches.sampler

    @property
    def batch_size(self) -> int:
        return self.batches.batch_size

    @property
    def drop_last(self) -> bool:
        return self.batches.drop_last

    def __len__(self) -> int:
        return len(self.batches)

    def skip(self, count: int) -> None:
        """Skips the first ``count`` batches of the next iteration without loading them."""
        self.left_out = count

    def __iter__(self) -> Iterator[list[SampleKey]]:
        left_out, self.left_out = self.left_out, 0
        epoch = getattr(self.sampler, 'epoch', 0) if self.epoch is None else self.epoch
        if self.endless:
            epoch = 0
            if isinstance(self.sampler, DefaultSampler):
                # All passes have the same length, so earlier ones are skipped at once.
                epoch, left_out = divmod(left_out, len(self))
        while True:
            if self.endless and hasattr(self.sampler, 'set_epoch'):
                self.sampler.set_epoch(epoch)
            position = 0
            for batch in self._seeded_batches(epoch):
                if left_out > 0:
                    left_out -= 1
                else:
                    yield [self._key(index, epoch, position + offset) for offset, index in enumerate(batch)]
                position += len(batch)
            if not self.endless:
                return
            if position == 0:
                raise ValueError(
                    f'train_dataloader gives no batch: {len(self.sampler)} samples, batch_size {self.batch_size}'
                )
            epoch += 1

    def _seeded_batches(self, epoch: int) -> Iterator[list[int]]:
        batches = iter(self.batches)
        # torch's RandomSampler takes its seed from the global generator when its first index is drawn.
        with seeded_globals(sample_stream(self.seed, epoch, len(self.sampler))):
            first = list(itertools.islice(batches, 1))
        return itertools.chain(first, batches)

    def _key(self, index: int, epoch: int, position: int) -> SampleKey:
        """Returns the key of a sample from its position in this rank's stream of indices."""
        if isinstance(self.sampler, DefaultSampler):
            return SampleKey(index, self.seed, epoch)
        rank, world_size = get_dist_info()
        position = position * world_size + rank
        if isinstance(self.sampler, InfiniteSampler) and type(self.batches) is BatchSampler:
            # It concatenates the passes and distributes the indices over the ranks.
            return SampleKey(index, self.seed, position // self.sampler.size)
        # The sampler may draw a sample several times per pass, or the batches do not follow its order.
        return SampleKey(index, self.seed, epoch, position)


class ResumableLoader(DataLoader):
    """A copy of a dataloader that uses :class:`SeededDataset` and :class:`KeyedBatches`.

    Args:
        loader (DataLoader): Has a batch sampler. It must not have been iterated with persistent workers.
        seed (int): As in :class:`KeyedBatches`.
        endless (bool): As in :class:`KeyedBatches`. Defaults to False.

    Raises:
        TypeError: If there is no batch sampler, as with an iterable dataset.
    """

    KEPT = (
        'num_workers',
        'worker_init_fn',
        'collate_fn',
        'pin_memory',
        'timeout',
        'multiprocessing_context',
        'generator',
        'prefetch_factor',
        'persistent_workers',
        'pin_memory_device',
    )

    def __init__(self, loader: DataLoader, seed: int, endless: bool = False) -> None:
        if isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None:
            raise TypeError(
                f'train_dataloader cannot be resumed exactly: {type(loader.dataset).__name__} has no batches by index; '
                "use mmengine's own train loop for it"
            )
        super().__init__(
            SeededDataset(loader.dataset),
            batch_sampler=KeyedBatches(loader.batch_sampler, seed, endless),
            **{name: getattr(loader, name) for name in self.KEPT},
        )
        shield_loader(self)

    def __iter__(self) -> Iterator[Any]:
        # A generator starts no worker before the first batch is requested: mmengine 0.10.7 creates an iterator before a
        # checkpoint is loaded, and would load the first batches in vain.
        yield from super().__iter__()

    def batches_from(self, position: int) -> Iterator[tuple[int, Any]]:
        """Iterates over the batches from ``position`` on, with their numbers; earlier ones are not loaded."""
        self.batch_sampler.skip(position)
        return zip(itertools.count(position), self)
