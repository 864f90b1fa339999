"""Exact peak memory of a run: what torch's allocators hand out, byte by byte, not what the process has in memory."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

CPU = 0  # as the trace numbers devices


def peak_memory(run: Callable[[], None], device: torch.device) -> int:
    """Bytes that a run holds at most, on top of what was there before it.

    Args:
        run (Callable): Is called once. What it frees of the memory that was there before is not seen on the CPU.
        device (torch.device): Of the tensors that count.

    Returns:
        int: On CUDA that of the caching allocator's tensors, without what it keeps in reserve.
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
    """Bytes that a trace's records of the CPU's memory reach, on top of where they start.

    Args:
        events (list[dict]): Of a trace with ``profile_memory=True``.
    """
    records = [event['args'] for event in events if event.get('name') == '[memory]']
    records = [record for record in records if record['Device Type'] == CPU]
    # Each tells the total after it; totals go on from one profile of a process to the next.
    starts = [record['Total Allocated'] - record['Bytes'] for record in records[:1]]
    return max((record['Total Allocated'] - starts[0] for record in records), default=0)
