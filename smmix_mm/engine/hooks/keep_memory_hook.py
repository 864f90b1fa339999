"""Keeps freed memory in the process when training on the CPU."""

import ctypes
import platform

from mmengine.hooks import Hook
from mmengine.runner import Runner

from smmix_mm.registry import HOOKS

# Parameters of glibc's mallopt (malloc.h): the size from which memory is mapped for one block alone, and the free
# memory at the top of the heap from which it is given back.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_BLOCK, LARGEST_REST = 2**30, 2**31 - 1


@HOOKS.register_module()
class KeepMemory(Hook):
    """Lets the C library keep the memory that a training step frees, for the next step.

    By default glibc gives the memory of activations back to the system and asks for it again, page by page, in every
    step. The process then holds the memory of its largest step all the time, and no figure changes. A GPU has an
    allocator of its own. The settings hold for the process and the workers it starts, until it ends.

    Raises:
        ValueError: From :meth:`before_train`, on a system without glibc.
    """

    def before_train(self, runner: Runner) -> None:
        keep_memory()


def keep_memory(block: int = LARGEST_BLOCK, rest: int = LARGEST_REST) -> None:
    """Sets the thresholds of glibc's allocator.

    Args:
        block (int): Bytes from which a block is mapped on its own. Defaults to 1 GiB.
        rest (int): Bytes of free memory at the top of the heap that are kept. Defaults to 2 GiB.

    Raises:
        ValueError: On a system without glibc.
    """
    library, _ = platform.libc_ver()
    if library != 'glibc':
        raise ValueError(f'KeepMemory needs glibc, but the C library is {library or "unknown"} ({platform.system()})')
    libc = ctypes.CDLL(None)
    if not (libc.mallopt(M_MMAP_THRESHOLD, block) and libc.mallopt(M_TRIM_THRESHOLD, rest)):
        raise ValueError(f'KeepMemory: glibc refused the thresholds {block} and {rest}')
