"""Work directories, held and asked for by real processes."""

import multiprocessing
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch
from processes import free_port

from smmix_mm.engine.work_dir import check_work_dir, hold_work_dir

HOLD = """
import multiprocessing, sys, time
from smmix_mm.engine.work_dir import hold_work_dir
with hold_work_dir(sys.argv[1]):
    # As a worker of a dataloader.
    worker = multiprocessing.get_context('fork').Process(target=time.sleep, args=(300,))
    worker.start()
    print('held', worker.pid, flush=True)
    time.sleep(300)
"""


def test_a_work_dir_is_made_and_left_clean(tmp_path):
    check_work_dir(tmp_path / 'a/b')
    assert list((tmp_path / 'a/b').iterdir()) == []
    (tmp_path / 'file').write_text('')
    with pytest.raises(OSError):
        check_work_dir(tmp_path / 'file/run')


@contextmanager
def holder(work_dir):
    """A process that holds the folder, and the number of one that it forked."""
    process = subprocess.Popen([sys.executable, '-c', HOLD, work_dir], stdout=subprocess.PIPE, text=True)
    worker = next(int(line.split()[1]) for line in process.stdout if line.startswith('held'))
    try:
        yield process, worker
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        os.kill(worker, signal.SIGKILL)


def test_one_run_holds_a_work_dir_until_it_is_gone(tmp_path):
    with holder(tmp_path) as (process, worker):
        with pytest.raises(ValueError, match=rf'another run trains in {tmp_path}: process {process.pid} on '):
            hold_work_dir(tmp_path).__enter__()
        process.kill()
        process.wait()
        os.kill(worker, 0)
        with hold_work_dir(tmp_path):
            assert (tmp_path / '.lock').read_text().startswith(f'process {os.getpid()} on ')


def test_a_work_dir_is_free_after_a_run_and_for_runs_of_the_same_process(tmp_path):
    for _ in range(2):
        with hold_work_dir(tmp_path), hold_work_dir(tmp_path):
            pass
    with holder(tmp_path):
        pass


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(37, 'No locks available')

    said = []
    monkeypatch.setattr('fcntl.lockf', refuse)
    monkeypatch.setattr('smmix_mm.engine.work_dir.print_log', lambda message, *_: said.append(message))
    with hold_work_dir(tmp_path):
        assert said == [f'{tmp_path} cannot be locked ([Errno 37] No locks available); let no other run train there.']


def ask(rank, port, work_dir):
    torch.distributed.init_process_group('gloo', f'tcp://127.0.0.1:{port}', rank=rank, world_size=2)
    with pytest.raises(ValueError, match='another run trains in'):
        hold_work_dir(work_dir).__enter__()
    torch.distributed.barrier()


def test_all_ranks_are_told_that_the_first_one_cannot_have_it(tmp_path):
    port = free_port()
    context = multiprocessing.get_context('spawn')
    processes = [context.Process(target=ask, args=(rank, port, tmp_path)) for rank in range(2)]
    with holder(tmp_path):
        for process in processes:
            process.start()
        for process in processes:
            process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
