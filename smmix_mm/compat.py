"""Differences between the supported versions of torch and OpenMMLab, in one place.

Supported are torch 2.1.2 with mmengine 0.10.7, mmcv 2.1.0, mmpretrain 1.2.0, mmdet 3.3.0 and mmsegmentation 1.2.2, up
to torch 2.12 with the onedl-* packages. Code that works with all of them needs no entry here.
"""

import inspect
import types
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

# Whether this torch supports float16 on the CPU (matrix products, autocast, a loss scaler): torch 2.3 and later.
CPU_FLOAT16 = hasattr(torch.amp, 'GradScaler')

# Whether DDP may split a full graph of torch.compile at its buckets. This fails on torch 2.1.
DDP_CUTS_FULL_GRAPHS = tuple(map(int, torch.__version__.split('.')[:2])) > (2, 1)

# Whether FSDP shards on CPUs. It creates a stream with a priority, which the CPU stream of torch 2.1 does not accept.
FSDP_ON_CPU = 'priority' in inspect.signature(torch.cpu.Stream).parameters

# Whether torch is asked for the autocast of a device by its name: torch 2.4 and later.
CPU_AUTOCAST_BY_NAME = hasattr(torch, 'get_autocast_dtype')

# Whether torch.compile is tracing. torch 2.1 has only the old name, which is deprecated in later versions.
is_compiling = getattr(torch.compiler, 'is_compiling', torch._utils.is_compiling)

# Whether torch.export is tracing. Older versions of torch cannot tell.
is_exporting = getattr(torch.compiler, 'is_exporting', lambda: False)


def is_cpu_autocast_enabled() -> bool:
    """Whether autocast is on for the CPU. ``is_autocast_cpu_enabled`` is deprecated from torch 2.4."""
    if CPU_AUTOCAST_BY_NAME:
        return torch.is_autocast_enabled('cpu')
    return torch.is_autocast_cpu_enabled()


def scripted_export() -> dict[str, bool]:
    """Arguments of ``torch.onnx.export`` for the exporter that traces, the only one of torch 2.1.

    Asked when needed: ``torch.onnx`` takes long to import.
    """
    return dict(dynamo=False) if 'dynamo' in inspect.signature(torch.onnx.export).parameters else {}


def cpu_grad_scaler(sharded: bool = False, enabled: bool = True, **settings: Any) -> Any:
    """A loss scaler for the CPU. An enabled one needs torch 2.3; a disabled one works with every version.

    Args:
        sharded (bool): Whether FSDP shards the gradients. Defaults to False.
        enabled (bool): Whether it scales. Defaults to True.
        **settings: Settings of torch's ``GradScaler``.

    Raises:
        RuntimeError: If ``enabled`` and this torch has no loss scaler for the CPU.
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
    """Lets ``torch.compile`` compile one function at least ``number`` times before it gives up.

    Args:
        number (int): Number of graphs, at least 1. A higher limit is kept.
    """
    # Newer versions of torch call it recompile_limit, with a default of 8, and still accept this name.
    settings = torch._dynamo.config
    settings.cache_size_limit = max(settings.cache_size_limit, number)


def allow_ddp() -> None:
    """Lets ``torch.compile(fullgraph=True)`` work inside DDP.

    By default a graph is split at DDP's buckets, so that gradients are exchanged while others are still computed. Where
    this is not supported the graph stays whole, and gradients are exchanged after its backward.
    """
    if not DDP_CUTS_FULL_GRAPHS:
        torch._dynamo.config.optimize_ddp = False


def make_traceable(model: nn.Module) -> None:
    """Removes the warnings of deprecated arguments from a model's modules, in place, so that it compiles to one graph.

    In mmcv's ``FFN`` and ``MultiheadAttention`` a decorator of mmengine inspects each call for such arguments. torch
    2.1 breaks the graph there; torch 2.12 does not.

    Args:
        model (nn.Module): The model. Names and results do not change.
    """
    for part in model.modules():
        # Only the forward of the class is replaced; one set on the instance is kept.
        forward = None if 'forward' in vars(part) else type(part).forward
        if getattr(forward, '__globals__', {}).get('__name__') == 'mmengine.utils.misc':
            part.forward = types.MethodType(forward.__wrapped__, part)


def own_device_time(event: Any) -> float:
    """Microseconds that an operator itself spent on the GPU. The attribute is named differently in torch 2.1.

    Args:
        event (Any): An event from ``key_averages()`` of torch's profiler.
    """
    spent = getattr(event, 'self_device_time_total', None)
    return event.self_cuda_time_total if spent is None else spent


@contextmanager
def uncached_autocast(device_type: str, enabled: bool = True) -> Iterator[None]:
    """Keeps the training's autocast, or disables it, without touching its cache of cast weights.

    On torch 2.1 a pass without gradients fills that cache with weights detached from the graph. The training forward
    after it would reuse them and get no gradients at all. torch 2.12 separates the two.

    Args:
        device_type (str): Device type of autocast, such as ``'cuda'``.
        enabled (bool): Whether autocast stays on if it is on. Defaults to True.
    """
    cached = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        with nullcontext() if enabled else torch.autocast(device_type, enabled=False, cache_enabled=False):
            yield
    finally:
        torch.set_autocast_cache_enabled(cached)
