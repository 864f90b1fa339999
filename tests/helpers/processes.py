"""Tools as real processes, and what they write down."""

import json
import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]


def run(tool: str, *args: object, check: bool = True, timeout: int = 300) -> subprocess.CompletedProcess:
    """Runs a program of ``tools/`` in the repository's root, on one thread."""
    done = subprocess.run(
        [sys.executable, ROOT / 'tools' / tool, *map(str, args)],
        cwd=ROOT,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    if check:
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def run_ranks(function: Callable[..., None], *args: object, timeout: int = 120) -> None:
    """Calls ``function(rank, *args)`` in two processes of one gloo group; fails unless both end well.

    The function has to be importable. The processes wait for each other before they end: ``destroy_process_group`` of
    torch 2.1 may hang when the other rank has left.
    """
    port, context = free_port(), multiprocessing.get_context('spawn')
    processes = [context.Process(target=_as_rank, args=(function, rank, port, args)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout)
    assert [process.exitcode for process in processes] == [0, 0]


def _as_rank(function: Callable[..., None], rank: int, port: int, args: tuple) -> None:
    torch.distributed.init_process_group('gloo', f'tcp://127.0.0.1:{port}', rank=rank, world_size=2)
    function(rank, *args)
    torch.distributed.barrier()


def scalars(work_dir: Path) -> list[dict]:
    """What mmengine wrote down in a work directory, of all runs in it."""
    files = sorted(work_dir.glob('*/vis_data/scalars.json'))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def free_port() -> int:
    """One that nothing on this machine listens to."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]
