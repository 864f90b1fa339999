"""Starts and ends the processes of a distributed run cleanly, with or without an accelerator."""

import atexit
import gc
import logging
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import barrier, is_distributed
from mmengine.registry import MODEL_WRAPPERS
from torch import distributed as torch_dist
from torch.nn.parallel import DistributedDataParallel

from smmix_mm.registry import find_scope_and_name
from smmix_mm.resume.ranks import read_timeout

# Each launcher's variables for the rank, the number of processes, and the rank on one machine.
LAUNCHERS = {
    'pytorch': ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'),
}
# The default of mmengine and torch.
DEFAULT_PORT = '29500'


@contextmanager
def distributed_run(cfg: Config) -> Iterator[None]:
    """Surrounds a run: opens gloo if there is no accelerator, and ends the process group before Python exits.

    On a machine with accelerators mmengine opens the process group itself. No reference to the model may be left at
    the end of the block, so build and use the runner in a function::

        with distributed_run(cfg):
            train(cfg)

    gloo's threads release Python objects after a reduction of gradients. If one does so while the interpreter shuts
    down, the process aborts ("terminate called without an active exception"). Destroying the process group ends these
    threads, provided that nothing else refers to it. A failed process must not wait for that, since the others do not
    answer: it prints its error and exits at once, and the launcher ends the others.

    Args:
        cfg (Config): Config of a ``Runner`` or ``FlexibleRunner``. ``launcher`` and ``env_cfg.dist_cfg.timeout`` are
            read. Without an accelerator missing settings of DDP are added.

    Raises:
        RuntimeError: If the launcher did not start this process.
    """
    if cfg.get('launcher', 'none') == 'none':
        yield
        return
    if get_device() == 'cpu':
        init_gloo(cfg.launcher, read_timeout(cfg))
        wrap_on_cpu(cfg)
    # atexit runs in reverse order: functions that the run registers, such as log writers, run before this one.
    outcome: dict[str, int] = {}
    atexit.register(_leave_at_once, outcome)
    try:
        yield
    except BaseException as error:
        outcome['status'] = _exit_status(error)
        if outcome['status'] == 0 and is_distributed():
            barrier()
        raise
    end_process_group()


def init_gloo(launcher: str, timeout: timedelta | None = None) -> None:
    """Opens a process group on CPUs; mmengine's own way asks CUDA for a device even for gloo.

    Args:
        launcher (str): ``'pytorch'``, ``'slurm'`` or ``'mpi'``. Its variables are translated to torchrun's, which
            mmengine and torch read later.
        timeout (timedelta, optional): How long processes wait for each other. Defaults to None, torch's 30 minutes.

    Raises:
        RuntimeError: If the launcher did not start this process.
    """
    if is_distributed():
        return
    if launcher not in LAUNCHERS:
        raise ValueError(f'launcher has to be one of none, {", ".join(LAUNCHERS)}, but got {launcher!r}')
    names = LAUNCHERS[launcher]
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise RuntimeError(
            f'launcher={launcher!r} needs the environment variables {", ".join(missing)}, which the launcher sets: '
            f'start with tools/dist_train.sh or tools/slurm_train.sh, or use --launcher none'
        )
    os.environ.update(zip(LAUNCHERS['pytorch'], [os.environ[name] for name in names], strict=True))
    if launcher == 'slurm' and 'MASTER_ADDR' not in os.environ:
        os.environ['MASTER_ADDR'] = _first_slurm_node()
    os.environ.setdefault('MASTER_PORT', DEFAULT_PORT)
    torch_dist.init_process_group('gloo', **({} if timeout is None else {'timeout': timeout}))


def wrap_on_cpu(cfg: Config) -> None:
    """Configures DDP to keep the model on the CPU; mmengine would name a GPU.

    Args:
        cfg (Config): Changed in place: ``model_wrapper_cfg``, or ``strategy.model_wrapper`` of a ``FlexibleRunner``.
            Wrappers and strategies other than DDP are left unchanged.
    """
    if cfg.get('runner_type') != 'FlexibleRunner':
        find_unused = cfg.get('find_unused_parameters', False)
        cfg.model_wrapper_cfg = _ddp_on_cpu(cfg.get('model_wrapper_cfg'), find_unused_parameters=find_unused)
        return
    cfg.strategy = cfg.get('strategy') or dict(type='DDPStrategy')
    if find_scope_and_name(cfg.strategy)[1] == 'DDPStrategy':
        cfg.strategy.model_wrapper = _ddp_on_cpu(cfg.strategy.get('model_wrapper'))


def end_process_group() -> None:
    """Waits for all processes, then ends the process group and its threads. Does nothing without a process group."""
    if not is_distributed():
        return
    barrier()
    # Runner, hooks and model form reference cycles, and DDP in them keeps its process group alive.
    gc.collect()
    torch_dist.destroy_process_group()


def _ddp_on_cpu(wrapper: dict | None, **defaults: bool) -> dict:
    wrapper = dict(type='MMDistributedDataParallel', broadcast_buffers=False, **defaults) | dict(wrapper or {})
    kind = MODEL_WRAPPERS.get(wrapper['type']) if isinstance(wrapper['type'], str) else wrapper['type']
    return {'device_ids': None, **wrapper} if issubclass(kind, DistributedDataParallel) else wrapper


def _first_slurm_node() -> str:
    nodes = os.environ.get('SLURM_NODELIST')
    command = ['scontrol', 'show', 'hostname', nodes or '']
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        raise RuntimeError(
            f'{" ".join(command)} does not name the first node of the job (SLURM_NODELIST is {nodes}): {error}. '
            f'Set MASTER_ADDR'
        ) from error


def _exit_status(error: BaseException) -> int:
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return 130 if isinstance(error, KeyboardInterrupt) else 1


def _leave_at_once(outcome: dict[str, int]) -> None:
    """Exits after an interrupted or failed run, once its error is printed, without waiting for its threads."""
    if 'status' not in outcome:
        return
    # Dataloader workers, which Python would otherwise end.
    for child in multiprocessing.active_children():
        child.kill()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(outcome['status'])
