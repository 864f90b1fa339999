"""Automatic mixed precision with or without an accelerator."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from numbers import Real

import torch
from mmengine.device import get_device
from mmengine.optim import AmpOptimWrapper as StockAmpOptimWrapper
from mmengine.optim import OptimWrapper
from torch import nn

from smmix_mm.compat import cpu_grad_scaler
from smmix_mm.registry import OPTIM_WRAPPERS

CPU_DTYPES = (torch.bfloat16, torch.float16)


@OPTIM_WRAPPERS.register_module()
class AmpOptimWrapper(StockAmpOptimWrapper):
    """mmengine's ``AmpOptimWrapper``, extended to the CPU; on an accelerator it is unchanged.

    On the CPU the default is bfloat16. It has the range of float32, so losses are not scaled and ``loss_scale`` is
    ignored. With float16 (torch 2.3 or later) losses are scaled as on an accelerator. A checkpoint of one resumes in
    the other.

    Args:
        loss_scale (float | str | dict): ``'dynamic'``; a fixed scale; or the arguments of torch's ``GradScaler``.
            Defaults to ``'dynamic'``.
        dtype (str | torch.dtype, optional): ``'bfloat16'`` or ``'float16'``. Defaults to None, which is float16 on a
            GPU and bfloat16 on the CPU.
        use_fsdp (bool): Whether the model is sharded by FSDP. Defaults to False.
        **kwargs: As in ``OptimWrapper``.

    Raises:
        ValueError: If the CPU cannot train in that ``dtype``.
        RuntimeError: If ``dtype`` is float16 and this version of torch cannot scale losses on the CPU.
    """

    def __init__(
        self,
        loss_scale: float | str | dict = 'dynamic',
        dtype: str | torch.dtype | None = None,
        use_fsdp: bool = False,
        **kwargs,
    ) -> None:
        # mmengine accepts only floats, but a command-line option may be an int.
        if isinstance(loss_scale, Real) and not isinstance(loss_scale, bool):
            loss_scale = float(loss_scale)
        self.on_cpu = _trains_on_cpu(kwargs['optimizer'], use_fsdp)
        if not self.on_cpu:
            super().__init__(loss_scale, dtype, use_fsdp, **kwargs)
            return
        # Skips mmengine's own __init__, which refuses a machine without an accelerator.
        OptimWrapper.__init__(self, **kwargs)
        self.cast_dtype = _cpu_dtype(dtype)
        make_scaler = partial(cpu_grad_scaler, sharded=use_fsdp, enabled=self.cast_dtype == torch.float16)
        self._scale_update_param = loss_scale if isinstance(loss_scale, float) else None
        if loss_scale == 'dynamic':
            self.loss_scaler = make_scaler()
        elif isinstance(loss_scale, float):
            self.loss_scaler = make_scaler(init_scale=loss_scale)
        elif isinstance(loss_scale, dict):
            self.loss_scaler = make_scaler(**loss_scale)
        else:
            raise TypeError(f"loss_scale has to be a number, a dict or 'dynamic', but got {loss_scale!r}")

    def load_state_dict(self, state_dict: dict) -> None:
        """Loads the state of the optimiser, and that of the scaler if the checkpoint has one.

        Args:
            state_dict (dict): State of this wrapper, saved on any kind of machine.
        """
        # A disabled scaler saves an empty state, which an enabled one refuses to load.
        if not state_dict.get('loss_scaler', True):
            state_dict.pop('loss_scaler')
        super().load_state_dict(state_dict)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocasts one training step, and skips the exchange of gradients while they accumulate.

        Args:
            model (nn.Module): The model under training.
        """
        if not self.on_cpu:
            with super().optim_context(model):
                yield
            return
        # mmengine's own autocast refuses float16 on the CPU.
        with OptimWrapper.optim_context(self, model), torch.autocast('cpu', dtype=self.cast_dtype):
            yield


def _trains_on_cpu(optimizer: torch.optim.Optimizer, use_fsdp: bool) -> bool:
    """Checks the parameters, as a model may stay on a GPU's host; with FSDP, which may offload, checks the machine."""
    if use_fsdp or get_device() == 'cpu':
        return get_device() == 'cpu'
    return all(parameter.device.type == 'cpu' for group in optimizer.param_groups for parameter in group['params'])


def _cpu_dtype(dtype: str | torch.dtype | None) -> torch.dtype:
    found = getattr(torch, dtype, dtype) if isinstance(dtype, str) else dtype or torch.bfloat16
    if found not in CPU_DTYPES:
        raise ValueError(f"dtype of AmpOptimWrapper has to be 'bfloat16' or 'float16' on the CPU, but got {dtype!r}")
    return found
