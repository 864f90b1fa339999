"""Batches that depend on seed, epoch and sample alone: the same after a resume and with any number of workers."""

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
    """The index of a sample, which also carries what its augmentation is drawn from.

    Args:
        index (int): Of the sample in the dataset.
        seed (int): The run's.
        epoch (int): Which pass over the data.
        position (int, optional): As in :func:`smmix_mm.streams.sample_stream`. Defaults to None.
    """

    def __new__(cls, index: int, seed: int, epoch: int, position: int | None = None) -> 'SampleKey':
        key = super().__new__(cls, index)
        key.seed, key.epoch, key.position = seed, epoch, position
        return key

    def __reduce__(self) -> tuple:
        return SampleKey, (int(self), self.seed, self.epoch, self.position)

    def stream(self) -> np.random.Generator:
        """The stream that the augmentation draws from."""
        return sample_stream(self.seed, self.epoch, int(self), self.position)


class SeededDataset(Dataset):
    """A dataset whose samples depend on their key alone, with readable samples in the place of unreadable ones.

    See :func:`smmix_mm.datasets.replacement.read_or_replace` for these. All attributes are those of the wrapped
    dataset; plain indices give its plain samples.

    Args:
        dataset (Dataset): With samples by index.

    Raises:
        UnreadableImageError: From indexing, if too many in a row are unreadable, or the sample has no data sample to
            carry the mark.
    """

    def __init__(self, dataset: Dataset) -> None:
        # Not by assignment, which goes to the wrapped dataset.
        self.__dict__['wrapped'] = dataset

    def __getattr__(self, name: str) -> Any:
        # Copying and unpickling ask for attributes before there is a dataset.
        if name.startswith('__') or 'wrapped' not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.wrapped, name)

    def __setattr__(self, name: str, value: Any) -> None:
        # Hooks that exchange the pipeline in the midst of a run mean the wrapped dataset's.
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
        # Nothing else draws in a worker, and putting NumPy's state back takes longer than all the rest.
        seed_globals(stream)
        return read_or_replace(self.wrapped, int(key), stream)


class KeyedBatches:
    """A batch sampler that hands on another's indices as keys, and can leave out the first batches.

    Args:
        batches (BatchSampler): Any with ``sampler`` and ``batch_size``.
        seed (int): The run's; may be set later, until the first iteration.
        endless (bool): Whether to go on with the next pass over the data for ever. Defaults to False.

    Attributes:
        epoch (int, optional): Of the next iteration, unless it is endless. None takes the sampler's.
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
        """Leaves out the first ``count`` batches of the next iteration; nothing of them is loaded."""
        self.left_out = count

    def __iter__(self) -> Iterator[list[SampleKey]]:
        left_out, self.left_out = self.left_out, 0
        epoch = getattr(self.sampler, 'epoch', 0) if self.epoch is None else self.epoch
        if self.endless:
            epoch = 0
            if isinstance(self.sampler, DefaultSampler):
                # The passes before are all as long as this one, and need not be gone through.
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
        """The key of a sample, by its position in this rank's stream of indices."""
        if isinstance(self.sampler, DefaultSampler):
            return SampleKey(index, self.seed, epoch)
        rank, world_size = get_dist_info()
        position = position * world_size + rank
        if isinstance(self.sampler, InfiniteSampler) and type(self.batches) is BatchSampler:
            # It lines up one pass after another and deals them out to the ranks.
            return SampleKey(index, self.seed, position // self.sampler.size)
        # A sampler that may draw a sample several times a pass, or batches that are not in the sampler's order.
        return SampleKey(index, self.seed, epoch, position)


class ResumableLoader(DataLoader):
    """A dataloader like another one, with :class:`SeededDataset` and :class:`KeyedBatches` in it.

    Args:
        loader (DataLoader): Any that has a batch sampler. It must not have been iterated with persistent workers.
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
        # A generator, which starts no worker before the first batch is asked for: mmengine 0.10.7 takes an iterator
        # before a checkpoint is loaded, and would load the first batches in vain.
        yield from super().__iter__()

    def batches_from(self, position: int) -> Iterator[tuple[int, Any]]:
        """The batches with their numbers from ``position`` on; those before are not loaded."""
        self.batch_sampler.skip(position)
        return zip(itertools.count(position), self)
