"""Exact peak memory of a run, in bytes allocated by torch instead of the resident memory of the process."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

CPU = 0  # as the trace numbers devices


def peak_memory(run: Callable[[], None], device: torch.device) -> int:
    """Measures the peak memory of a run in bytes, in addition to the memory allocated before.

    Args:
        run (Callable): Called once. On the CPU, freeing memory that was allocated before is not recorded.
        device (torch.device): Device of the tensors that count.

    Returns:
        int: The peak. On CUDA it counts allocated tensors, not the reserve of the caching allocator.
    """
    if device.type == 'cuda':
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'trace.json'
        profiler.export_chrome_trace(str(path))
        return highest_total(json.loads(path.read_text())['traceEvents'])


def highest_total(events: list[dict]) -> int:
    """Returns the peak of a trace's CPU memory records in bytes, relative to their start.

    Args:
        events (list[dict]): Events of a trace with ``profile_memory=True``.
    """
    records = [event['args'] for event in events if event.get('name') == '[memory]']
    records = [record for record in records if record['Device Type'] == CPU]
    # Each record holds the total after it; totals continue from one profile of a process to the next.
    starts = [record['Total Allocated'] - record['Bytes'] for record in records[:1]]
    return max((record['Total Allocated'] - starts[0] for record in records), default=0)
