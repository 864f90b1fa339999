"""Stops the run or skips the update if the loss is not finite, and never saves weights that are not finite."""

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import all_reduce, get_rank
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.runner import Runner
from torch import Tensor
from torch.optim import Optimizer

from smmix_mm.registry import HOOKS
from smmix_mm.resume.start import find_whole_checkpoint
from smmix_mm.unwrapping import list_optim_wrappers

from .reports import name_step, warn

ACTIONS = ('stop', 'skip')


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Checks that losses, weights and, with ``'skip'``, gradients are finite.

    ``'stop'`` ends the run at the first loss that is not finite. It adds no wait for the device, since mmengine's
    ``RuntimeInfoHook`` has already moved every part of the loss to the host.

    ``'skip'`` skips optimiser steps whose gradients are not finite after reduction, accumulation and clipping. Weights
    and the optimiser's state stay unchanged, and schedules continue. If the gradients are not finite on any rank, all
    ranks skip. This waits for the device once per update. The number of skipped updates is logged as
    ``skipped_updates`` and survives a resume. Steps skipped by a loss scaler count only if the loss was not finite;
    otherwise the scaler is searching for its scale.

    With either action, a checkpoint with weights that are not finite is never written.

    Args:
        action (str): ``'stop'`` or ``'skip'``. Defaults to ``'stop'``.
        max_skips (int): Number of consecutive skipped updates at which ``'skip'`` also stops. Defaults to 10.

    Raises:
        ValueError: If a setting is invalid.
        FloatingPointError: While training, when the run has to stop. It names the step, the parts of the loss and the
            last good checkpoint.
    """

    # After RuntimeInfoHook, which fetches the losses; before weight averaging and checkpoints.
    priority = 'HIGH'

    def __init__(self, action: str = 'stop', max_skips: int = 10) -> None:
        if action not in ACTIONS:
            raise ValueError(f'action has to be one of {", ".join(ACTIONS)}, but got {action!r}')
        if max_skips < 1:
            raise ValueError(f'max_skips has to be at least 1, but got {max_skips}')
        self.action = action
        self.max_skips = max_skips
        self._steps: list[tuple[Optimizer, Callable]] = []
        # Since the last update: whether gradients were finite, and a description of a loss that was not.
        self._verdicts: list[bool] = []
        self._bad_loss: str | None = None

    def before_train(self, runner: Runner) -> None:
        if self.action == 'stop':
            return
        for wrapper in list_optim_wrappers(runner):
            if not isinstance(wrapper.optimizer, Optimizer):
                raise ValueError(
                    f"FiniteLossHook(action='skip') needs an optimiser of torch, but the run has "
                    f"{type(wrapper.optimizer).__name__}; use action='stop'"
                )
            self._steps.append((wrapper.optimizer, wrapper.optimizer.step))
            wrapper.optimizer.step = self._judged(wrapper.optimizer)
        self._note(runner.message_hub, *self._counts(runner.message_hub))

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Mapping | None = None,
        outputs: Mapping[str, Tensor] | None = None,
    ) -> None:
        parts = _fetched(outputs or {}, runner.message_hub)
        # mmengine adds up the values with 'loss' in their names; other values may be undefined.
        finite = all(math.isfinite(value) for name, value in parts.items() if 'loss' in name)
        words = ', '.join(f'{name}={value:.6g}' for name, value in parts.items())
        if self.action == 'stop':
            if not finite:
                raise FloatingPointError(
                    f'the loss is not finite in {name_step(runner)}, rank {get_rank()}: {words}. '
                    f"{_way_back(runner)} To skip such updates, use FiniteLossHook(action='skip')."
                )
            return
        if not finite:
            self._bad_loss = f'{name_step(runner)}: {words}'
        if any(wrapper.should_update() for wrapper in list_optim_wrappers(runner)):
            self._conclude(runner, words)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        # The tensors are on the host already. The loss may have been bad on another rank only, or only the gradients.
        bad = _spoiled(runner, checkpoint)
        if bad:
            raise FloatingPointError(
                f'{len(bad)} of the weight tensors are not finite after {name_step(runner)}, the first is {bad[0]}; '
                f'they are not saved. {_way_back(runner)}'
            )

    def after_train(self, runner: Runner) -> None:
        for optimizer, step in self._steps:
            optimizer.step = step
        self._steps.clear()

    def _judged(self, optimizer: Optimizer) -> Callable:
        """Wraps the optimiser's step with a check. torch.compile removes torch's own pre-hook in torch 2.1."""
        step = optimizer.step

        @functools.wraps(step)
        def judged_step(*args: Any, **kwargs: Any) -> Any:
            self._judge(optimizer)
            return step(*args, **kwargs)

        return judged_step

    def _judge(self, optimizer: Optimizer) -> None:
        """Removes the gradients before a step if they are not finite."""
        if getattr(optimizer, 'found_inf', None) is not None and optimizer.found_inf.item():
            # Loss scalers always call fused optimisers, which skip the step themselves.
            return
        parameters = [parameter for group in optimizer.param_groups for parameter in group['params']]
        bad = _on_any_rank(_not_finite([parameter.grad for parameter in parameters]))
        if bad:
            for parameter in parameters:
                parameter.grad = None
        self._verdicts.append(not bad)

    def _conclude(self, runner: Runner, words: str) -> None:
        """Counts and reports after an update was made or skipped."""
        verdicts, bad_loss = self._verdicts, self._bad_loss
        self._verdicts, self._bad_loss = [], None
        total, in_a_row = self._counts(runner.message_hub)
        if verdicts and all(verdicts):
            if in_a_row:
                self._note(runner.message_hub, total, 0)
            if bad_loss:
                warn(runner, f'the loss was not finite in {bad_loss}, but the gradients were, so the update was made')
            return
        if not verdicts and not _on_any_rank(torch.tensor(float(bad_loss is not None), device=get_device())):
            return
        self._note(runner.message_hub, total + 1, in_a_row + 1)
        cause = f'the loss is not finite in {bad_loss}' if bad_loss else f'the gradients are not finite ({words})'
        message = f'the update of {name_step(runner)} is skipped ({total + 1} skipped in this run): {cause}'
        if in_a_row + 1 >= self.max_skips:
            raise FloatingPointError(
                f'{message}. {in_a_row + 1} consecutive updates were skipped, and max_skips is {self.max_skips}. '
                f'{_way_back(runner)}'
            )
        warn(runner, message)

    def _counts(self, hub: MessageHub) -> tuple[int, int]:
        return hub.get_info('skipped_updates', 0), hub.get_info('skipped_updates_in_a_row', 0)

    def _note(self, hub: MessageHub, total: int, in_a_row: int) -> None:
        hub.update_info('skipped_updates', total)
        hub.update_info('skipped_updates_in_a_row', in_a_row)
        hub.update_scalar('train/skipped_updates', total)


def _fetched(outputs: Mapping[str, Tensor], hub: MessageHub) -> dict[str, float]:
    """Returns the values of a step; those that RuntimeInfoHook has logged are not fetched from the device again."""
    noted = hub.log_scalars
    return {
        name: float(noted[f'train/{name}'].current() if f'train/{name}' in noted else value)
        for name, value in outputs.items()
    }


def _not_finite(gradients: Iterable[Tensor | None]) -> Tensor:
    """Returns a flag on the gradients' device, 1 if one of them is not finite."""
    # With FSDP a gradient is empty if the rank holds no part of it.
    gradients = [gradient for gradient in gradients if gradient is not None and gradient.numel()]
    if not gradients:
        return torch.zeros((), device=get_device())
    # The largest absolute value is infinite or nan if any value is, and unlike a sum it cannot overflow.
    largest = torch.stack([norm.float() for norm in torch._foreach_norm(gradients, math.inf)])
    return (~largest.isfinite()).any().float()


def _on_any_rank(flag: Tensor) -> bool:
    # With FSDP each rank holds a part of the gradients.
    all_reduce(flag, 'max')
    return bool(flag.item())


def _spoiled(runner: Runner, checkpoint: dict) -> list[str]:
    """Names the tensors that must not be saved. Buffers, such as masks, may hold infinities on purpose."""
    buffers = {name.replace('_fsdp_wrapped_module.', '') for name, _ in runner.model.named_buffers()}
    # DeepSpeed stores the weights elsewhere.
    return [
        name
        for name, value in checkpoint.get('state_dict', {}).items()
        if isinstance(value, Tensor)
        and value.is_floating_point()
        and (value.isnan().any() if {name, f'module.{name}'} & buffers else not value.isfinite().all())
    ]


def _way_back(runner: Runner) -> str:
    try:
        path = find_whole_checkpoint(runner.work_dir)
    except ValueError as error:
        return f'{error}.'
    if path is None:
        return f'There is no checkpoint in {runner.work_dir} yet.'
    return f'The last good checkpoint is {path}; continue from it with --resume.'
