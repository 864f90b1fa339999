"""Keeps logged values only as long as the log needs them."""

from collections.abc import Mapping
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from smmix_mm.registry import HOOKS


@HOOKS.register_module()
class LogHistoryHook(Hook):
    """Bounds the history that mmengine keeps of each logged value.

    mmengine keeps up to a million values of each, copies them all to add one, and writes them into every checkpoint.
    The log does not change: the history covers the longest window of the log processor and the longest epoch. If the
    log processor uses values of the whole run, all are kept.

    Args:
        min_length (int): The least number of values to keep, for hooks that read them. Defaults to 1000.

    Raises:
        ValueError: If ``min_length`` is less than 1.
    """

    # After all hooks that log values of a step.
    priority = 'VERY_LOW'

    def __init__(self, min_length: int = 1000) -> None:
        if min_length < 1:
            raise ValueError(f'min_length has to be at least 1, but got {min_length}')
        self.min_length = min_length
        self._max_length: int | None = None

    def before_train(self, runner: Runner) -> None:
        windows = [runner.log_processor.window_size]
        for figure in runner.log_processor.custom_cfg:
            # A figure without a window is computed from all values.
            windows.append(figure.get('window_size', 'global'))
        if 'global' in windows:
            self._max_length = None
            return
        loops = [runner.train_loop, *([runner.val_loop] if runner.val_loop is not None else [])]
        lengths = [len(loop.dataloader) for loop in loops] + [size for size in windows if size != 'epoch']
        self._max_length = max(self.min_length, *lengths)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Mapping[str, Any] | None = None
    ) -> None:
        if self._max_length is None:
            return
        for history in runner.message_hub.log_scalars.values():
            # The history is cut when the next value is added.
            history.max_length = self._max_length
