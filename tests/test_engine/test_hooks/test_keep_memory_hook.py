"""Memory that a step frees stays in the process."""

import platform
import resource

import pytest
import torch
from processes import WARM

from smmix_mm.engine import KeepMemory
from smmix_mm.registry import HOOKS

MEGABYTES = 34
needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='needs glibc')


def count_faults(keep, found):
    """Pages that the system handed out while a large block was filled and freed twenty times."""
    if keep:
        HOOKS.build(dict(type='smmix_mm.KeepMemory')).before_train(None)
    for _ in range(8):
        torch.ones(MEGABYTES * 2**18)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(MEGABYTES * 2**18)
    found.put(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)


@needs_glibc
def test_freed_memory_is_not_asked_for_again():
    """A process of its own for each: the settings cannot be taken back."""
    counts = {}
    for keep in (False, True):
        found = WARM.Queue()
        process = WARM.Process(target=count_faults, args=(keep, found))
        process.start()
        counts[keep] = found.get(timeout=60)
        process.join()
    # A page has 4 KiB, or 2 MiB with transparent huge pages.
    assert counts[False] >= 20 * MEGABYTES // 2
    # The heap may still grow now and then, where a small block has been put at its end.
    assert counts[True] < counts[False] / 3


def test_other_systems_are_refused(monkeypatch):
    monkeypatch.setattr(platform, 'libc_ver', lambda: ('', ''))
    with pytest.raises(ValueError, match='KeepMemory needs glibc, but the C library is unknown'):
        KeepMemory().before_train(None)
