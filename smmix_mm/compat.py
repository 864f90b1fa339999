"""What differs between the versions of torch and OpenMMLab that this package runs on, in one place.

From torch 2.1.2 with mmengine 0.10.7, mmcv 2.1.0, mmpretrain 1.2.0, mmdet 3.3.0 and mmsegmentation 1.2.2 to torch 2.12
with the onedl-* packages. Where one way of writing works with all of them it is taken, and nothing is said here.
"""

import inspect
import types
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

# Whether this torch computes in float16 on the CPU: products of matrices, autocast, a loss scaler. From 2.3.
CPU_FLOAT16 = hasattr(torch.amp, 'GradScaler')

# Whether DDP's buckets can cut a graph that torch.compile was asked for as one. Not on torch 2.1, where that fails.
DDP_CUTS_FULL_GRAPHS = tuple(map(int, torch.__version__.split('.')[:2])) > (2, 1)

# Whether FSDP shards on CPUs: it asks for a stream with a priority, and what stands for one on a CPU of torch 2.1 takes
# none.
FSDP_ON_CPU = 'priority' in inspect.signature(torch.cpu.Stream).parameters

# Whether torch.compile is at work. torch 2.1 has it under another name alone, which later ones warn of.
is_compiling = getattr(torch.compiler, 'is_compiling', torch._utils.is_compiling)


def cpu_grad_scaler(sharded: bool = False, enabled: bool = True, **settings: Any) -> Any:
    """A loss scaler for the CPU, which torch has since 2.3; one that is off, everywhere.

    Args:
        sharded (bool): Whether FSDP shards the gradients. Defaults to False.
        enabled (bool): Whether it scales. Defaults to True.
        **settings: Of torch's ``GradScaler``.

    Raises:
        RuntimeError: If it should scale and this torch cannot.
    """
    if not enabled:
        return getattr(torch.amp, 'GradScaler', torch.cuda.amp.GradScaler)(enabled=False)
    if not CPU_FLOAT16:
        raise RuntimeError(
            f"dtype='float16' on the CPU needs a loss scaler, which torch has from 2.3, but this is torch "
            f"{torch.__version__}; use dtype='bfloat16'"
        )
    if sharded:
        from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler

        return ShardedGradScaler('cpu', **settings)
    return torch.amp.GradScaler('cpu', **settings)


def allow_graphs(number: int) -> None:
    """Lets ``torch.compile`` make at least that many graphs of one function before it gives up.

    Args:
        number (int): At least 1. A limit that is higher stays.
    """
    # Newer versions of torch, whose default is 8, call it recompile_limit and know this name still.
    settings = torch._dynamo.config
    settings.cache_size_limit = max(settings.cache_size_limit, number)


def allow_ddp() -> None:
    """Lets ``torch.compile(fullgraph=True)`` work inside of DDP.

    By default a graph is cut at DDP's buckets, so that gradients are exchanged while others are computed. Where that
    cannot be, the graph stays whole, and the exchange begins when it is done.
    """
    if not DDP_CUTS_FULL_GRAPHS:
        torch._dynamo.config.optimize_ddp = False


def make_traceable(model: nn.Module) -> None:
    """Takes the warnings of deprecated arguments from the parts of a model, in place, so that it can be one graph.

    mmcv's ``FFN`` and ``MultiheadAttention`` have them, by a decorator of mmengine that inspects each call. torch 2.1
    breaks its graph there; torch 2.12 does not.

    Args:
        model (nn.Module): Its names and results stay as they are.
    """
    for part in model.modules():
        # Of the class: one that somebody put on the instance stays.
        forward = None if 'forward' in vars(part) else type(part).forward
        if getattr(forward, '__globals__', {}).get('__name__') == 'mmengine.utils.misc':
            part.forward = types.MethodType(forward.__wrapped__, part)


def own_device_time(event: Any) -> float:
    """Microseconds that an operator itself spent on the GPU. torch 2.1 says cuda where later ones say device.

    Args:
        event (Any): Of ``key_averages()`` of torch's profiler.
    """
    spent = getattr(event, 'self_device_time_total', None)
    return event.self_cuda_time_total if spent is None else spent


@contextmanager
def uncached_autocast(device_type: str, enabled: bool = True) -> Iterator[None]:
    """Goes on under the training's autocast, or not, without touching its cache of cast weights.

    On torch 2.1 a pass without gradients fills that cache with weights cut off from the graph; the training forward
    after it would reuse them and get no gradients at all. torch 2.12 keeps them apart.

    Args:
        device_type (str): Such as ``'cuda'``.
        enabled (bool): Whether autocast goes on, if it is on. Defaults to True.
    """
    cached = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        with nullcontext() if enabled else torch.autocast(device_type, enabled=False, cache_enabled=False):
            yield
    finally:
        torch.set_autocast_cache_enabled(cached)
