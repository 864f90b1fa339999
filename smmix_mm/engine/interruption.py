"""SIGTERM, the scheduler's warning: noticed by all ranks in the same step, and no end to dataloader workers."""

import os
import signal
import threading
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from types import FrameType, TracebackType
from typing import Any

import torch
import torch.distributed as torch_dist
from mmengine.dist import get_world_size
from torch.utils.data import DataLoader


class ValidationInterruptedError(Exception):
    """Raised in the midst of a validation, when SIGTERM has come; the train loop catches it."""


class Interruption:
    """Takes SIGTERM while it is entered, and tells all ranks in the same step that one of them got it.

    Args:
        interval (int): With several ranks: they agree every so many steps. Defaults to 10.
        timeout (timedelta, optional): How long ranks wait for each other. Defaults to None, torch's 30 minutes.

    Raises:
        ValueError: If the interval is below 1.

    Attributes:
        served (bool): Whether the run has come to its end by it.
    """

    def __init__(self, interval: int = 10, timeout: timedelta | None = None) -> None:
        if interval < 1:
            raise ValueError(f'interrupt_interval of train_cfg has to be at least 1, but got {interval}')
        self.interval = interval
        self.timeout = timeout
        self.asked = False
        self.served = False
        self._group = None
        self._previous: Any = None

    def __enter__(self) -> 'Interruption':
        if get_world_size() > 1 and self._group is None:
            # Of its own, on the host: NCCL would make the host wait for the device.
            how = {} if self.timeout is None else {'timeout': self.timeout}
            self._group = torch_dist.new_group(backend='gloo', **how)
        # Elsewhere Python lets nobody handle signals.
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Whatever holds a process group keeps its threads alive.
        self._group = None
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
        return step % self.interval == 0 and self.agree_highest(int(self.asked)) > 0

    def agree_highest(self, value: int) -> int:
        """The highest of what the ranks say."""
        if get_world_size() == 1:
            return value
        values = torch.tensor(value)
        torch_dist.all_reduce(values, op=torch_dist.ReduceOp.MAX, group=self._group)
        return int(values)

    def gather(self, content: Any) -> list[Any] | None:
        """What all ranks hand in, on the first rank; None on the others."""
        if get_world_size() == 1:
            return [content]
        contents = [None] * get_world_size() if torch_dist.get_rank() == 0 else None
        torch_dist.gather_object(content, contents, dst=0, group=self._group)
        return contents


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
