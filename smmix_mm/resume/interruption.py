"""SIGTERM, the scheduler's warning: noticed by all ranks in the same step, and no end to dataloader workers."""

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
    """Raised in the midst of a validation, when SIGTERM has come; the train loop catches it."""


class Interruption:
    """Takes SIGTERM while it is entered, and tells all ranks in the same step that one of them got it.

    Args:
        interval (int): With several ranks: they agree every so many steps. Defaults to 10.
        channel (RankChannel, optional): By which the ranks agree. Defaults to None, the process group of the run.

    Raises:
        ValueError: If the interval is below 1.

    Attributes:
        served (bool): Whether the run has come to its end by it.
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
        # Elsewhere Python lets nobody handle signals.
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
        """Whether any rank got SIGTERM; the same answer on every rank.

        Args:
            step (int): Number of this step, the same on every rank.
        """
        if get_world_size() == 1:
            return self.asked
        return step % self.interval == 0 and self.channel.highest(int(self.asked)) > 0


def shield_loader(loader: DataLoader) -> None:
    """Has the workers that a dataloader will start shielded by :func:`shield_worker`."""
    loader.worker_init_fn = partial(shield_worker, then=loader.worker_init_fn)


def shield_worker(worker_id: int, then: Callable[[int], None] | None = None) -> None:
    """For ``worker_init_fn``: lets a dataloader worker end on its parent's SIGTERM alone.

    Schedulers send SIGTERM to all processes of a job. A worker that ends by it makes its parent fail before that could
    save anything.

    Args:
        worker_id (int): Of the worker.
        then (Callable[[int], None], optional): Called afterwards. Defaults to None.
    """
    parent = os.getppid()
    # Blocked here and in all threads that start from here; handlers in Python are not told who sent a signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_await_end, args=(parent,), daemon=True).start()
    if then is not None:
        then(worker_id)


def _await_end(parent: int) -> None:
    while True:
        if signal.sigwaitinfo({signal.SIGTERM}).si_pid == parent:
            # As torch's own handler does: nothing of a worker needs to be put away.
            os._exit(0)
