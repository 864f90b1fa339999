"""Activation checkpointing that gets along with gradients at the images, averaged weights and torch.compile."""

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
    """Has modules computed a second time in the backward pass, so that their activations need no memory until then.

    mmengine's own switch ``activation_checkpointing`` does the same with torch's reentrant checkpoints. These refuse
    ``torch.autograd.grad``, which PuzzleMix needs, and are put in place before averaged weights are copied, whose
    copies then run the blocks of the model under training.

    Args:
        modules (str | Sequence[str]): Names of modules in the model, such as ``'backbone.layers'``. Of a list of
            modules each is recomputed by itself.

    Raises:
        ValueError: Before training, if the model has no module of that name.
        TypeError: Before training, if something else has put a plain function in the place of a module's ``forward``.
    """

    # Before CompileBackbone, which takes modules as it finds them.
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
    # Without the instance: a copy of the module has to go on with its own parts.
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

        # Not functools.partial, nor a method made here: torch.compile knows neither in all versions.
        def run(*args: Any, **kwargs: Any) -> Any:
            return forward(self, *args, **kwargs)

        return checkpoint(run, *args, use_reentrant=False, **kwargs)

    module.forward = MethodType(recomputed, module)
