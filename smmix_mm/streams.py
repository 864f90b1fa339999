"""Random streams of a step. Mixing never draws from the global random state.

Each step has two streams. *shared*, from (seed, step), is the same on every rank and decides the method and the region
size, so that no rank waits for the extra forward of another. *local*, from (seed, step, rank), decides everything else.
A resumed run therefore draws the same numbers as an uninterrupted one.
"""

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from mmengine.device import get_device
from mmengine.dist import broadcast_object_list, get_world_size
from mmengine.logging import MessageHub
from torch import Tensor


@dataclass(frozen=True)
class Streams:
    """The randomness of one step.

    Attributes:
        shared: Generator with the same state on every rank.
        local: Generator of this rank.
        progress: Completed part of the run before the step, from 0 to 1; 0 outside a run.
    """

    shared: np.random.Generator
    local: np.random.Generator
    progress: float = 0.0


class StepClock:
    """Counts steps: finds the run and the iteration that a batch belongs to.

    Inside a run mmengine's message hub has the seed and the iteration (one per micro-step). Outside a run it has
    neither, or the values of the last run. Calls within the same iteration are therefore numbered, so that a
    hand-written training loop gets new draws in each step too.
    """

    def __init__(self) -> None:
        self._run: tuple[str, int] | None = None
        self._seed = 0
        self._iteration: int | None = None
        self._repeats = 0

    def tick(self) -> tuple[int, int, int]:
        """``(seed, iteration, repeats)`` of this call; the seed is the run's, the same on every rank."""
        hub = MessageHub.get_current_instance()
        iteration = int(hub.get_info('iter', 0))
        run = (hub.instance_name, int(hub.get_info('seed', torch.initial_seed())))
        self._repeats = self._repeats + 1 if (run, iteration) == (self._run, self._iteration) else 0
        self._iteration = iteration
        if run != self._run:
            self._run, self._seed = run, run_seed(run[1])
        return self._seed, iteration, self._repeats


def run_progress() -> float:
    """Completed part of the run, from 0 to 1: mmengine's iteration over the planned iterations; 0 outside a run."""
    hub = MessageHub.get_current_instance()
    return min(hub.get_info('iter', 0) / (hub.get_info('max_iters') or math.inf), 1.0)


def step_streams(seed: int, iteration: int, repeats: int = 0, rank: int = 0, progress: float = 0.0) -> Streams:
    """The two streams of a step.

    Args:
        seed (int): Seed of the run, at least 0.
        iteration (int): Micro-step of the run, at least 0.
        repeats (int): Number of earlier calls in the same iteration. Defaults to 0.
        rank (int): Rank of the process. Defaults to 0.
        progress (float): Completed part of the run. Defaults to 0.
    """
    key = [seed, iteration, repeats]
    return Streams(np.random.default_rng([*key, 0]), np.random.default_rng([*key, 1, rank]), progress)


def sample_stream(seed: int, epoch: int, index: int, position: int | None = None) -> np.random.Generator:
    """The stream that the augmentation of one sample draws from.

    Args:
        seed (int): Seed of the run, at least 0.
        epoch (int): Epoch, at least 0.
        index (int): Index of the sample in the dataset.
        position (int, optional): Position in the epoch, for samplers that draw a sample several times an epoch.
            Defaults to None.
    """
    # The fourth number distinguishes the streams of this module; 0 and 1 are the streams of a step.
    return np.random.default_rng([seed, epoch, index, 2] if position is None else [seed, epoch, index, 3, position])


def seed_step(seed: int, iteration: int, rank: int = 0) -> None:
    """Seeds the global generators of Python, NumPy and torch, on all devices, for one step.

    Draws from them, such as those of dropout, then depend only on seed, step and rank, and no state has to be stored.

    Args:
        seed (int): Seed of the run, at least 0.
        iteration (int): Micro-step of the run, at least 0.
        rank (int): Rank of the process. Defaults to 0.
    """
    stream = np.random.default_rng([seed, iteration, 0, 4, rank])
    seed_globals(stream)
    # torch.manual_seed seeds every kind of device, but takes a millisecond even where there is none.
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(int(stream.integers(2**32)))
    elif get_device() != 'cpu':
        torch.manual_seed(int(stream.integers(2**32)))


def seed_globals(stream: np.random.Generator) -> None:
    """Seeds the global CPU generators of Python, NumPy and torch from a stream.

    Unlike ``torch.manual_seed``, it leaves the generators of other devices alone.
    """
    seeds = stream.integers(2**32, size=3).tolist()
    random.seed(seeds[0])
    np.random.seed(seeds[1])
    torch.default_generator.manual_seed(seeds[2])


@contextmanager
def seeded_globals(stream: np.random.Generator) -> Iterator[None]:
    """Seeds the global CPU generators from a stream and restores their states afterwards.

    Stock augmentations draw from these generators. Generators of other devices are left alone.
    """
    torch_generator = torch.default_generator
    states = random.getstate(), np.random.get_state(), torch_generator.get_state()
    seed_globals(stream)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch_generator.set_state(states[2])


def to_device(values: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """Copies values from the host to a device without waiting for the copy.

    Args:
        values (np.ndarray | Tensor): Values on the host.
        device (torch.device): The device to copy to.

    Returns:
        Tensor: The values on the device, in the same dtype.
    """
    values = torch.as_tensor(values)
    if device.type == 'cpu':
        return values
    # A copy from memory that is not pinned would wait for the device.
    return (values.pin_memory() if device.type == 'cuda' else values).to(device, non_blocking=True)


def random_pairs(stream: np.random.Generator, batch_size: int, device: torch.device) -> Tensor:
    """Draws a source for each image: a random permutation of the batch.

    Args:
        stream (np.random.Generator): The local stream.
        batch_size (int): ``B``.
        device (torch.device): Where to put the result.

    Returns:
        Tensor: ``(B,)`` int64; image ``pairs[b]``, possibly ``b`` itself, is the source of image ``b``.
    """
    return to_device(stream.permutation(batch_size), device)


def run_seed(seed: int) -> int:
    """The seed of the run: that of the first rank, because under ``diff_rank_seed`` mmengine's differs between ranks.

    The ranks communicate here, so call it once per run, not once per step.

    Args:
        seed (int): Seed of this rank.
    """
    if get_world_size() == 1:
        return seed
    seeds = [seed]
    broadcast_object_list(seeds, src=0)
    return seeds[0]
