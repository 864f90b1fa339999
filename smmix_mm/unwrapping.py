"""The parts of a run without what wraps them."""

from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import nn


def unwrap_model(model: nn.Module) -> nn.Module:
    """The model itself.

    Args:
        model (nn.Module): In a parallel wrapper or not.
    """
    return model.module if is_model_wrapper(model) else model


def list_optim_wrappers(runner: Runner) -> list[OptimWrapper]:
    """The wrappers of a run's optimisers, of which there may be several.

    Args:
        runner (Runner): While it trains.
    """
    wrapper = runner.optim_wrapper
    return list(wrapper.values()) if isinstance(wrapper, OptimWrapperDict) else [wrapper]
