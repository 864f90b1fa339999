"""Where the draws of a step come from: never from the global random state.

Two streams a step. *shared*, from (seed, step), is the same on every rank: it decides the method and the region size,
so that no rank pays for an extra forward while the others wait. *local*, from (seed, step, rank), decides all else.
A resumed run therefore draws what the uninterrupted one would have drawn.
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
        shared: Generator in the same state on every rank.
        local: Generator of this rank.
        progress: How much of the run was over before the step, from 0 to 1; 0 outside of a run.
    """

    shared: np.random.Generator
    local: np.random.Generator
    progress: float = 0.0


class StepClock:
    """Says which step of which run a batch belongs to.

    Inside a run mmengine's message hub knows seed and iteration (one per micro-step). Outside one it knows nothing, or
    what the last run left behind; therefore calls that see the same iteration are numbered, and a model trained by a
    hand-written loop draws anew in each step all the same.
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
    """How much of the run is over, from 0 to 1: mmengine's iterations of all that are planned; 0 outside of a run."""
    hub = MessageHub.get_current_instance()
    return min(hub.get_info('iter', 0) / (hub.get_info('max_iters') or math.inf), 1.0)


def step_streams(seed: int, iteration: int, repeats: int = 0, rank: int = 0, progress: float = 0.0) -> Streams:
    """The two streams of a step.

    Args:
        seed (int): The run's, at least 0.
        iteration (int): Micro-step of the run, at least 0.
        repeats (int): Number of earlier calls in the same iteration. Defaults to 0.
        rank (int): Rank of the process. Defaults to 0.
        progress (float): How much of the run is over. Defaults to 0.
    """
    key = [seed, iteration, repeats]
    return Streams(np.random.default_rng([*key, 0]), np.random.default_rng([*key, 1, rank]), progress)


def sample_stream(seed: int, epoch: int, index: int, position: int | None = None) -> np.random.Generator:
    """The stream that the augmentation of one sample draws from.

    Args:
        seed (int): The run's, at least 0.
        epoch (int): Which pass over the data, at least 0.
        index (int): Of the sample in the dataset.
        position (int, optional): For samplers that draw a sample several times a pass: where in the pass. Defaults to
            None.
    """
    # The fourth number tells all streams of this module apart: 0 and 1 are those of a step.
    return np.random.default_rng([seed, epoch, index, 2] if position is None else [seed, epoch, index, 3, position])


def seed_step(seed: int, iteration: int, rank: int = 0) -> None:
    """Seeds the global generators of Python, NumPy and torch, those of all devices too, for one step.

    What draws from them, such as dropout, then depends on seed, step and rank alone, and there is no state to store.

    Args:
        seed (int): The run's, at least 0.
        iteration (int): Micro-step of the run, at least 0.
        rank (int): Rank of the process. Defaults to 0.
    """
    stream = np.random.default_rng([seed, iteration, 0, 4, rank])
    seed_globals(stream)
    # torch.manual_seed would do for all kinds of devices, but takes a millisecond where there are none.
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(int(stream.integers(2**32)))
    elif get_device() != 'cpu':
        torch.manual_seed(int(stream.integers(2**32)))


def seed_globals(stream: np.random.Generator) -> None:
    """Seeds the global CPU generators of Python, NumPy and torch from a stream.

    Generators of other devices are left alone, which ``torch.manual_seed`` would seed too.
    """
    seeds = stream.integers(2**32, size=3).tolist()
    random.seed(seeds[0])
    np.random.seed(seeds[1])
    torch.default_generator.manual_seed(seeds[2])


@contextmanager
def seeded_globals(stream: np.random.Generator) -> Iterator[None]:
    """Seeds the global CPU generators from a stream and puts their states back afterwards.

    For stock augmentations, which draw from those. Generators of other devices are left alone.
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
    """Copies what was drawn on the host to a device without waiting for it.

    Args:
        values (np.ndarray | Tensor): On the host.
        device (torch.device): Where to.

    Returns:
        Tensor: Of the same dtype.
    """
    values = torch.as_tensor(values)
    if device.type == 'cpu':
        return values
    # From memory that is not pinned the copy would wait for the device.
    return (values.pin_memory() if device.type == 'cuda' else values).to(device, non_blocking=True)


def random_pairs(stream: np.random.Generator, batch_size: int, device: torch.device) -> Tensor:
    """Draws a source for each image: a random permutation of the batch.

    Args:
        stream (np.random.Generator): The local one.
        batch_size (int): ``B``.
        device (torch.device): Where to put the result.

    Returns:
        Tensor: ``(B,)`` int64; image ``b`` gets image ``pairs[b]`` as its source, maybe itself.
    """
    return to_device(stream.permutation(batch_size), device)


def run_seed(seed: int) -> int:
    """The seed of the run: that of the first rank, because mmengine's differs per rank under ``diff_rank_seed``.

    It communicates, and is therefore asked once a run and not once a step.

    Args:
        seed (int): That of this rank.
    """
    if get_world_size() == 1:
        return seed
    seeds = [seed]
    broadcast_object_list(seeds, src=0)
    return seeds[0]
