"""Handles SIGTERM: all ranks notice it in the same step, and dataloader workers survive it."""

import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from types import FrameType, TracebackType
from typing import Any

from mmengine.dist import get_world_size
from torch.utils.data import DataLoader

from .ranks import RankChannel


class ValidationInterruptedError(Exception):
    """Raised during a validation after SIGTERM; the train loop catches it."""


class Interruption:
    """A context manager that catches SIGTERM and tells all ranks in the same step that one of them received it.

    Args:
        interval (int): Number of steps between exchanges of several ranks. Defaults to 10.
        channel (RankChannel, optional): Used for these exchanges. Defaults to None, the process group of the run.

    Raises:
        ValueError: If the interval is below 1.

    Attributes:
        served (bool): Whether the run has been ended by SIGTERM.
    """

    def __init__(self, interval: int = 10, channel: RankChannel | None = None) -> None:
        if interval < 1:
            raise ValueError(f'interrupt_interval of train_cfg has to be at least 1, but got {interval}')
        self.interval = interval
        self.channel = channel or RankChannel()
        self.asked = False
        self.served = False
        self._previous: Any = None

    def __enter__(self) -> 'Interruption':
        # Python allows signal handlers in the main thread only.
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True

    def is_due(self, step: int) -> bool:
        """Whether any rank received SIGTERM; the result is the same on every rank.

        Args:
            step (int): Number of this step, the same on every rank.
        """
        if get_world_size() == 1:
            return self.asked
        return step % self.interval == 0 and self.channel.highest(int(self.asked)) > 0


def shield_loader(loader: DataLoader) -> None:
    """Applies :func:`shield_worker` to the workers that a dataloader will start."""
    loader.worker_init_fn = partial(shield_worker, then=loader.worker_init_fn)


def shield_worker(worker_id: int, then: Callable[[int], None] | None = None) -> None:
    """A ``worker_init_fn`` that makes a dataloader worker ignore SIGTERM unless its parent sent it.

    Schedulers send SIGTERM to all processes of a job. If a worker ends, its parent fails before it can save a
    checkpoint.

    Args:
        worker_id (int): Index of the worker.
        then (Callable[[int], None], optional): Called afterwards. Defaults to None.
    """
    parent = os.getppid()
    # Blocked in this thread and those it starts. A Python signal handler could not tell who sent the signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_await_end, args=(parent,), daemon=True).start()
    if then is not None:
        then(worker_id)


def _await_end(parent: int) -> None:
    while True:
        if signal.sigwaitinfo({signal.SIGTERM}).si_pid == parent:
            # As torch's own handler does: a worker has nothing to clean up.
            os._exit(0)
