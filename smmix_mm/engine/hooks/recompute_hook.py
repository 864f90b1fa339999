"""Activation checkpointing that works with gradients of the images, averaged weights and torch.compile."""

from collections.abc import Sequence
from functools import wraps
from operator import attrgetter
from types import MethodType
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn
from torch.utils.checkpoint import checkpoint

from smmix_mm.registry import HOOKS
from smmix_mm.unwrapping import unwrap_model


@HOOKS.register_module()
class RecomputeActivations(Hook):
    """Recomputes modules in the backward pass instead of storing their activations.

    mmengine's own switch ``activation_checkpointing`` uses torch's reentrant checkpoints. They do not support
    ``torch.autograd.grad``, which PuzzleMix needs. They are also installed before ``EMAHook`` copies the model, and the
    copy would then run the blocks of the model under training.

    Args:
        modules (str | Sequence[str]): Names of modules in the model, such as ``'backbone.layers'``. The items of a
            module list are recomputed one by one.

    Raises:
        ValueError: Before training, if the model has no module of that name.
        TypeError: Before training, if a module's ``forward`` was replaced by a plain function.
    """

    # Before CompileBackbone, which compiles modules in their current state.
    priority = 'HIGH'

    def __init__(self, modules: str | Sequence[str]) -> None:
        self.modules = [modules] if isinstance(modules, str) else list(modules)

    def before_train(self, runner: Runner) -> None:
        model = unwrap_model(runner.model)
        for name in self.modules:
            for module in _find(model, name):
                _recompute(module)


def _find(model: nn.Module, name: str) -> list[nn.Module]:
    try:
        found = attrgetter(name)(model)
    except AttributeError as error:
        raise ValueError(
            f'modules of RecomputeActivations names {name!r}, but {type(model).__name__} has no such module: {error}'
        ) from error
    return list(found) if isinstance(found, nn.ModuleList | nn.Sequential) else [found]


def _recompute(module: nn.Module) -> None:
    # Unbound, so that a copy of the module uses its own submodules.
    forward = getattr(module.forward, '__func__', None)
    if forward is None:
        raise TypeError(
            f'RecomputeActivations needs modules whose forward is a method, but {type(module).__name__} has '
            f'{module.forward!r}'
        )

    @wraps(forward)
    def recomputed(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(self, *args, **kwargs)

        # Some versions of torch.compile support neither functools.partial nor a method created here.
        def run(*args: Any, **kwargs: Any) -> Any:
            return forward(self, *args, **kwargs)

        return checkpoint(run, *args, use_reentrant=False, **kwargs)

    module.forward = MethodType(recomputed, module)
