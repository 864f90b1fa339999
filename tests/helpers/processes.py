"""Tools as real processes, and what they write down."""

import json
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from quick_configs import make_configs_quick

ROOT = Path(__file__).resolve().parents[2]

# Processes are forked from one that has imported the libraries and done nothing else: importing them takes longer than
# what most tests try. tests/integration/test_resume.py and the launchers start Python anew.
WARM = multiprocessing.get_context('forkserver')
WARM.set_forkserver_preload(['mmpretrain.apis', 'mmdet.apis', 'mmseg.apis'])


def run(
    tool: str | Path, *args: object, check: bool = True, timeout: int = 300, **environment: str
) -> subprocess.CompletedProcess:
    """Runs a program of ``tools/`` in a process of its own, in the repository's root and on one thread.

    The process does not see what the test has set in its own environment.
    """
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder, name) for name in ('stdout', 'stderr')]
        process = start(tool, *args, outputs=outputs, **environment)
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
            raise TimeoutError(f'{tool} {args} ran for {timeout} s:\n{outputs[1].read_text()[-3000:]}')
        texts = [output.read_text() for output in outputs]
    done = subprocess.CompletedProcess([tool, *args], process.exitcode, *texts)
    if check:
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def start(
    tool: str | Path, *args: object, outputs: list[Path], group: int | None = None, **environment: str
) -> multiprocessing.process.BaseProcess:
    """Starts a program of ``tools/`` as :func:`run` does. Its output is appended to two files, or to the same.

    Args:
        tool: Path of the program in ``tools/``, or an absolute one.
        args: Its arguments.
        outputs: Files of standard output and errors.
        group: The process group to join; 0 for one of its own, None for that of the tests.
        environment: Variables to set.
    """
    arguments = [str(ROOT / 'tools' / tool), *map(str, args)]
    process = WARM.Process(target=_as_program, args=(arguments, outputs, group, environment))
    process.start()
    while group == 0 and process.is_alive() and os.getpgid(process.pid) != process.pid:
        time.sleep(0.001)
    return process


def _as_program(arguments: list[str], outputs: list[Path], group: int | None, environment: dict[str, str]) -> None:
    if group is not None:
        os.setpgid(0, group)
    # A shell that starts the tests in the background has them, and what they start, ignore Control-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for descriptor, output in enumerate(outputs, 1):
        os.dup2(os.open(output, os.O_CREAT | os.O_WRONLY | os.O_APPEND), descriptor)
    os.chdir(ROOT)
    os.environ.update(environment, OMP_NUM_THREADS='1')
    torch.set_num_threads(1)
    make_configs_quick()
    sys.argv = arguments
    sys.path.insert(0, str(Path(arguments[0]).parent))
    runpy.run_path(arguments[0], run_name='__main__')


def run_ranks(function: Callable[..., None], *args: object, timeout: int = 120) -> None:
    """Calls ``function(rank, *args)`` in two processes of one gloo group; fails unless both end well.

    The function has to be importable. The processes wait for each other before they end: ``destroy_process_group`` of
    torch 2.1 may hang when the other rank has left.
    """
    port = free_port()
    processes = [WARM.Process(target=_as_rank, args=(function, rank, port, args)) for rank in range(2)]
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
