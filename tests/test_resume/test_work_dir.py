"""Work directories, held and asked for by real processes."""

import multiprocessing
import os
import resource
import signal
import subprocess
import time
from contextlib import contextmanager

import pytest
import torch
from processes import WARM, run_ranks
from small_checkpoints import save

from smmix_mm.files import write_whole
from smmix_mm.resume.work_dir import check_work_dir, explained, hold_work_dir


def hold(work_dir, told):
    """Holds the folder, and forks a process as a dataloader does its workers."""
    with hold_work_dir(work_dir):
        worker = multiprocessing.get_context('fork').Process(target=time.sleep, args=(300,))
        worker.start()
        told.send(worker.pid)
        time.sleep(300)


def test_a_work_dir_is_made_and_left_clean(tmp_path):
    check_work_dir(tmp_path / 'a/b')
    assert list((tmp_path / 'a/b').iterdir()) == []
    (tmp_path / 'file').write_text('')
    with pytest.raises(OSError):
        check_work_dir(tmp_path / 'file/run')


@contextmanager
def holder(work_dir):
    """A process that holds the folder, and the number of one that it forked."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = WARM.Process(target=hold, args=(work_dir, sender))
    process.start()
    sender.close()
    worker = receiver.recv()
    try:
        yield process, worker
    finally:
        process.kill()
        process.join()
        os.kill(worker, signal.SIGKILL)


def test_one_run_holds_a_work_dir_until_it_is_gone(tmp_path):
    with holder(tmp_path) as (process, worker):
        with pytest.raises(ValueError, match=rf'another run trains in {tmp_path}: process {process.pid} on '):
            hold_work_dir(tmp_path).__enter__()
        process.kill()
        process.join()
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
    monkeypatch.setattr('smmix_mm.resume.work_dir.print_log', lambda message, *_: said.append(message))
    with hold_work_dir(tmp_path):
        assert said == [
            f'{tmp_path} cannot be locked ([Errno 37] No locks available). Make sure that no other run trains there.'
        ]


def ask(_, work_dir):
    with pytest.raises(ValueError, match='another run trains in'):
        hold_work_dir(work_dir).__enter__()


def test_all_ranks_are_told_that_the_first_one_cannot_have_it(tmp_path):
    with holder(tmp_path):
        run_ranks(ask, tmp_path)


def write_explained(path, write):
    with explained(path):
        write_whole(path, write)


@contextmanager
def mounted(folder, *options):
    folder.mkdir()
    done = subprocess.run(['mount', '-t', 'tmpfs', '-o', ','.join(options), 'tmpfs', folder], capture_output=True)
    if done.returncode != 0:
        pytest.skip(f'mounting is not allowed: {done.stderr.decode()}')
    try:
        yield folder
    finally:
        subprocess.run(['umount', '-l', folder], check=True)


def test_a_full_disk_is_said_and_spares_the_older_checkpoint(tmp_path):
    with mounted(tmp_path / 'disk', 'size=64k') as disk:
        older = save(disk, 'epoch_1.pth', 1)
        before = older.read_bytes()
        big = torch.zeros(40_000)
        with pytest.raises(
            OSError, match=r'epoch_2.pth cannot be written \(No space left.*Free some space .*disk: \d+'
        ):
            write_explained(disk / 'epoch_2.pth', lambda unfinished: unfinished.write_bytes(big.numpy().tobytes()))
        assert older.read_bytes() == before
        assert list(disk.iterdir()) == [older]


def test_a_read_only_disk_is_said_before_anything_is_built(tmp_path):
    with mounted(tmp_path / 'disk', 'ro') as disk:
        for work_dir in (disk, disk / 'new'):
            with pytest.raises(
                OSError, match=r'cannot be written \(Read-only file system\)\. .*choose another --work-dir'
            ):
                check_work_dir(work_dir)
        with pytest.raises(OSError, match='Make it writable'):
            write_explained(disk / 'epoch_2.pth', lambda unfinished: unfinished.write_bytes(b'0'))


def test_a_limit_on_file_sizes_is_said(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match=r'epoch_1.pth cannot be written \(File too large\)\. Free some space'):
            write_explained(tmp_path / 'epoch_1.pth', lambda unfinished: unfinished.write_bytes(bytes(5000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []
