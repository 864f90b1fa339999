"""Strategies of mmengine's ``FlexibleRunner``."""

from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from mmengine._strategy import FSDPStrategy as MMEngineFSDPStrategy
from mmengine.device import get_device
from mmengine.dist import is_distributed
from mmengine.optim import BaseOptimWrapper
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.optim import Optimizer

from smmix_mm.checkpoint.weights import keep_metadata
from smmix_mm.compat import FSDP_ON_CPU
from smmix_mm.mixing.base import MixingMethod
from smmix_mm.registry import FUNCTIONS, STRATEGIES, find_scope_and_name


@FUNCTIONS.register_module()
def is_transformer_block(module: nn.Module, recurse: bool, nonwrapped_numel: int) -> bool:  # noqa: ARG001
    """An ``auto_wrap_policy`` of FSDP: each block with an attention is a unit, the rest of the model another one.

    The modules that a mixing method uses outside of the backbone (heads, the norms after the last block) are thus in
    the outermost unit, whose parameters are unsharded during the entire step.

    Args:
        module (nn.Module): A module of the model.
        recurse (bool): True asks whether to look inside, False whether this is a unit.
        nonwrapped_numel (int): Number of parameters of the module that are in no unit yet.
    """
    return recurse or hasattr(module, 'attn')


@STRATEGIES.register_module()
class FSDPStrategy(MMEngineFSDPStrategy):
    """mmengine's ``FSDPStrategy``, adapted to train vision transformers.

    - Units are the transformer blocks. Checkpoints are not sharded, so they also load without FSDP.
    - Without an accelerator the model is sharded among processes on CPUs.
    - Weight decay by shape (``flat_decay_mult``) uses the shapes of unsharded parameters; a shard is always flat.
    - Gradients are clipped by the norm over all shards instead of that of each rank.
    - The state of the optimizer is loaded with the order of arguments of torch 2.1 and later.

    Args:
        model_wrapper (dict, optional): Arguments of mmengine's ``MMFullyShardedDataParallel``. Defaults to None.
            Missing ones are ``auto_wrap_policy='smmix_mm.is_transformer_block'`` and ``use_orig_params=True``.
        state_dict_cfg (str | dict): As in mmengine. Defaults to ``'full'``.
        **kwargs: As in mmengine.

    Raises:
        RuntimeError: If the run is not distributed, or if there is no GPU and this torch cannot shard on CPUs.
        ValueError: If a method copies the model, as AutoMix does.
    """

    def __init__(
        self, *, model_wrapper: dict | None = None, state_dict_cfg: str | dict = 'full', **kwargs: Any
    ) -> None:
        super().__init__(model_wrapper=model_wrapper, state_dict_cfg=state_dict_cfg, **kwargs)
        if not is_distributed():
            raise RuntimeError(
                "FSDPStrategy shards a model among processes, but launcher is 'none': start with tools/dist_train.sh "
                'or tools/slurm_train.sh'
            )
        if get_device() == 'cpu':
            if not FSDP_ON_CPU:
                raise RuntimeError(
                    f'FSDP needs a GPU with torch {torch.__version__}; on CPUs it needs a newer torch (tested: 2.12)'
                )
            # The tensors are on the CPU already. Offloading would free them while they are copied, and torch crashes.
            self.state_dict_config.offload_to_cpu = self.optim_state_dict_config.offload_to_cpu = False

    def _wrap_model(self, model: nn.Module) -> nn.Module:
        copying = [
            type(module).__name__
            for module in model.modules()
            if isinstance(module, MixingMethod) and next(module.parameters(), None) is not None
        ]
        if copying:
            raise ValueError(
                f'{", ".join(copying)} copies parameters of the model one by one, but FSDP shards them: train with '
                f'DDP, without FSDPStrategy'
            )
        wrapper = dict(auto_wrap_policy='smmix_mm.is_transformer_block', use_orig_params=True)
        if get_device() == 'cpu':
            wrapper['device_id'] = torch.device('cpu')
        self.model_wrapper = wrapper | dict(self.model_wrapper or {})
        return super()._wrap_model(model)

    def build_optim_wrapper(
        self, optim_wrapper: Optimizer | BaseOptimWrapper | dict, model: nn.Module | None = None
    ) -> BaseOptimWrapper:
        if isinstance(optim_wrapper, Mapping) and find_scope_and_name(optim_wrapper)[1] == 'AmpOptimWrapper':
            # mmengine recognises only its own AmpOptimWrapper, by name.
            optim_wrapper.setdefault('use_fsdp', True)
        with FullyShardedDataParallel.summon_full_params(model):
            built = super().build_optim_wrapper(optim_wrapper, model)
        # Clipping by value needs no change for shards.
        if getattr(built, 'clip_func', None) is nn.utils.clip_grad_norm_:
            built.clip_func = partial(_clip_shards, model)
        return built

    def model_state_dict(self) -> dict[str, Tensor]:
        # FSDP sets an attribute on each tensor, which keeps it from being saved as a plain tensor.
        weights = super().model_state_dict()
        plain = OrderedDict((name, value.detach()) for name, value in weights.items())
        keep_metadata(plain, weights)
        return plain

    def load_optim_state_dict(self, state_dict: dict) -> None:
        optimizer = self.optim_wrapper.optimizer
        state = FullyShardedDataParallel.optim_state_dict_to_load(
            model=self.model, optim=optimizer, optim_state_dict=state_dict
        )
        self.optim_wrapper.load_state_dict(state)


def _clip_shards(
    model: FullyShardedDataParallel,
    parameters: list[nn.Parameter],  # noqa: ARG001
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,  # noqa: ARG001
) -> Tensor:
    """Torch's ``clip_grad_norm_`` with the norm of the unsharded gradient, which FSDP computes itself."""
    norm = model.clip_grad_norm_(max_norm, norm_type)
    if error_if_nonfinite and not norm.isfinite():
        raise RuntimeError(
            f'the norm of order {norm_type} of all gradients is {norm.item()}; set clip_grad.error_if_nonfinite=False '
            f'to continue with such gradients'
        )
    return norm
