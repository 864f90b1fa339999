"""What the ranks of a run tell each other beside the exchange of gradients."""

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
    """A process group on the host, for numbers and objects that must not make the host wait for the device.

    Outside of a ``with`` block it uses the group of the run itself; with one process it needs none.

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
        # Whatever holds a process group keeps its threads alive.
        self._group = None

    def highest(self, value: int) -> int:
        """The highest of the values that the ranks hand in, on every rank."""
        if get_world_size() == 1:
            return value
        values = torch.tensor(value)
        torch_dist.all_reduce(values, op=torch_dist.ReduceOp.MAX, group=self._group)
        return int(values)

    def gather(self, content: Any) -> list[Any] | None:
        """What all ranks hand in, by rank, on the first rank; None on the others."""
        if get_world_size() == 1:
            return [content]
        contents = [None] * get_world_size() if torch_dist.get_rank() == 0 else None
        torch_dist.gather_object(content, contents, dst=0, group=self._group)
        return contents


def decide_together(decide: Callable[[], Answer]) -> Answer:
    """What the first rank alone looks up, told to all.

    Args:
        decide (Callable): Called by the first rank. Its answer has to be picklable.

    Raises:
        OSError, ValueError: On all ranks, if the first one's call does.
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
    """How long a process waits for another: ``env_cfg.dist_cfg.timeout``, in seconds; None if it is not set.

    Args:
        cfg (Config): Of a run.
    """
    seconds = ((cfg.get('env_cfg') or {}).get('dist_cfg') or {}).get('timeout')
    return None if seconds is None else timedelta(seconds=seconds)
