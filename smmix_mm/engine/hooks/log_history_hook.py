"""Logged values are kept as long as logs are made of them, not for the whole run."""

from collections.abc import Mapping
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from smmix_mm.registry import HOOKS


@HOOKS.register_module()
class LogHistoryHook(Hook):
    """Bounds the history that mmengine keeps of each logged value.

    mmengine keeps up to a million values of each, copies them all to add one, and writes them into every checkpoint.
    What is logged does not change: as many are kept as the longest window of the log processor and the longest epoch
    have. Where the log processor asks for values of the whole run, all are kept.

    Args:
        min_length (int): So many values are kept at least, for hooks that read them. Defaults to 1000.

    Raises:
        ValueError: If ``min_length`` is less than 1.
    """

    # After whatever logs values of a step.
    priority = 'VERY_LOW'

    def __init__(self, min_length: int = 1000) -> None:
        if min_length < 1:
            raise ValueError(f'min_length has to be at least 1, but got {min_length}')
        self.min_length = min_length
        self._max_length: int | None = None

    def before_train(self, runner: Runner) -> None:
        windows = [runner.log_processor.window_size]
        for figure in runner.log_processor.custom_cfg:
            # A figure without a window is made of all values.
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
            # It cuts itself when the next value comes.
            history.max_length = self._max_length
