"""Access to the models and the optimiser wrappers of a run."""

from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import nn


def unwrap_model(model: nn.Module) -> nn.Module:
    """The model without its parallel wrapper and without test-time augmentation.

    Args:
        model (nn.Module): A model, wrapped or not.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def list_models(model: nn.Module) -> list[nn.Module]:
    """The model without its wrappers, and that of its teacher, which is not among its modules.

    Args:
        model (nn.Module): A model, wrapped or not, with or without a teacher.
    """
    model = unwrap_model(model)
    teacher = getattr(model, 'teacher', None)
    # Teachers of mmdet are modules of the model.
    return [model] if teacher is None or isinstance(teacher, nn.Module) else [model, teacher.model]


def list_optim_wrappers(runner: Runner) -> list[OptimWrapper]:
    """The optimiser wrappers of a run, one or several.

    Args:
        runner (Runner): A runner that is training.
    """
    wrapper = runner.optim_wrapper
    return list(wrapper.values()) if isinstance(wrapper, OptimWrapperDict) else [wrapper]
