"""Communication between the ranks of a run, apart from the exchange of gradients."""

from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Any, TypeVar

import torch
from mmengine.config import Config
from mmengine.dist import broadcast_object_list, get_world_size, is_main_process
from torch import distributed as torch_dist

Answer = TypeVar('Answer')


class RankChannel:
    """A process group on the host, to exchange numbers and objects without waiting for the device.

    Outside of a ``with`` block the run's own group is used. A single process needs no group.

    Args:
        timeout (timedelta, optional): How long ranks wait for each other. Defaults to None, torch's 30 minutes.
    """

    def __init__(self, timeout: timedelta | None = None) -> None:
        self.timeout = timeout
        self._group = None

    def __enter__(self) -> 'RankChannel':
        if get_world_size() > 1 and self._group is None:
            # NCCL would make the host wait for the device.
            how = {} if self.timeout is None else {'timeout': self.timeout}
            self._group = torch_dist.new_group(backend='gloo', **how)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A reference to a process group keeps its threads alive.
        self._group = None

    def highest(self, value: int) -> int:
        """Returns the highest value of all ranks on every rank."""
        if get_world_size() == 1:
            return value
        values = torch.tensor(value)
        torch_dist.all_reduce(values, op=torch_dist.ReduceOp.MAX, group=self._group)
        return int(values)

    def gather(self, content: Any) -> list[Any] | None:
        """Returns the contents of all ranks, in order of rank, on the first rank; None on the others."""
        if get_world_size() == 1:
            return [content]
        contents = [None] * get_world_size() if torch_dist.get_rank() == 0 else None
        torch_dist.gather_object(content, contents, dst=0, group=self._group)
        return contents


def decide_together(decide: Callable[[], Answer]) -> Answer:
    """Calls a function on the first rank only and returns its result on all ranks.

    Args:
        decide (Callable): Called on the first rank. Its result has to be picklable.

    Raises:
        OSError, ValueError: On all ranks, if the call on the first one raises it.
    """
    answer: list = [None, None]
    if is_main_process():
        try:
            answer[0] = decide()
        except (OSError, ValueError) as error:
            answer[1] = error
    broadcast_object_list(answer, src=0)
    if answer[1] is not None:
        raise answer[1]
    return answer[0]


def read_timeout(cfg: Config) -> timedelta | None:
    """Reads how long processes wait for each other: ``env_cfg.dist_cfg.timeout`` in seconds; None if it is not set.

    Args:
        cfg (Config): Config of a run.
    """
    seconds = ((cfg.get('env_cfg') or {}).get('dist_cfg') or {}).get('timeout')
    return None if seconds is None else timedelta(seconds=seconds)
