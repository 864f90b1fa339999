"""Keeps freed memory in the process when training on the CPU."""

import ctypes
import platform

from mmengine.hooks import Hook
from mmengine.runner import Runner

from smmix_mm.registry import HOOKS

# Parameters of glibc's mallopt (malloc.h): the free memory at the top of the heap from which it is given back; the size
# from which a block is mapped alone; and how many blocks may be.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
KEPT = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1}
# What the thresholds come to by themselves once large blocks have been freed.
USUAL = {M_MMAP_MAX: 65536, M_MMAP_THRESHOLD: 2**25, M_TRIM_THRESHOLD: 2**26}


@HOOKS.register_module()
class KeepMemory(Hook):
    """Lets the C library keep the memory that a training step frees, for the next step.

    By default glibc gives the memory of activations back to the system and asks for it again, page by page, in every
    step. With this hook the process holds the memory of its largest step all the time, and no figure changes. A GPU has
    an allocator of its own. The settings hold until the process ends, also in workers that are forked from it.

    Raises:
        ValueError: From :meth:`before_train`, on a system without glibc.
    """

    def before_train(self, runner: Runner) -> None:
        keep_memory()


def keep_memory(keep: bool = True) -> None:
    """Sets the parameters of glibc's allocator.

    Args:
        keep (bool): Whether freed memory stays in the process; False for about what glibc does by itself. Defaults to
            True.

    Raises:
        ValueError: On a system without glibc.
    """
    library, _ = platform.libc_ver()
    if library != 'glibc':
        raise ValueError(f'KeepMemory needs glibc, but the C library is {library or "unknown"} ({platform.system()})')
    libc = ctypes.CDLL(None)
    for parameter, value in (KEPT if keep else USUAL).items():
        libc.mallopt(parameter, value)
