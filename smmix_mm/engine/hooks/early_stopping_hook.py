"""Early stopping that survives a resume."""

from collections.abc import Mapping
from typing import Any

from mmengine.hooks import EarlyStoppingHook as MMEngineEarlyStoppingHook
from mmengine.runner import Runner

from smmix_mm.registry import HOOKS

# Key of the message hub, which is stored in checkpoints.
PATIENCE = 'early_stopping'


@HOOKS.register_module()
class EarlyStoppingHook(MMEngineEarlyStoppingHook):
    """mmengine's ``EarlyStoppingHook``, which a resumed run continues.

    The best score, and the number of validations since, are in the checkpoints. A run that was stopped by them does not
    go on when it is resumed, unless ``patience`` or ``stopping_threshold`` is raised. One that ``check_finite`` stopped
    goes on.

    Args:
        monitor (str): Name of the metric, such as ``'accuracy/top1'``.
        strict (bool): Whether a validation without this metric is an error. Defaults to True, in contrast to mmengine,
            whose hook warns and never stops the run.
        **kwargs: ``rule``, ``min_delta`` (0.1), ``check_finite`` (True), ``patience`` (5) and ``stopping_threshold``
            (None) as in mmengine's hook.

    Raises:
        ValueError: When the training starts, if the run has no validation.
        RuntimeError: After a validation without the metric, if ``strict``; it names the metrics that there are.
    """

    # Before CheckpointHook, which may write a checkpoint after the validation.
    priority = 'LOW'

    def __init__(self, monitor: str, strict: bool = True, **kwargs: Any) -> None:
        super().__init__(monitor, strict=strict, **kwargs)

    def before_train(self, runner: Runner) -> None:
        if runner.val_loop is None:
            raise ValueError(
                f'EarlyStoppingHook(monitor={self.monitor!r}) needs a validation, but val_cfg of the run is None; set '
                f'val_dataloader, val_cfg and val_evaluator'
            )
        former = runner.message_hub.get_info(PATIENCE, (self.wait_count, self.best_score))
        self.wait_count, self.best_score = former
        threshold = self.stopping_threshold
        is_reached = threshold is not None and self.rule_map[self.rule](self.best_score, threshold)
        if self.wait_count >= self.patience or is_reached:
            runner.logger.warning(
                f'Early stopping ended this run before it was resumed: the best {self.monitor} is {self.best_score:.3f}'
                f', {self.wait_count} validations ago. To go on, raise patience={self.patience} or change '
                f'stopping_threshold={threshold}.'
            )
            runner.train_loop.stop_training = True

    def after_val_epoch(self, runner: Runner, metrics: Mapping[str, float]) -> None:
        super().after_val_epoch(runner, metrics)
        runner.message_hub.update_info(PATIENCE, [self.wait_count, float(self.best_score)])
