"""Checks that a run's work directory is writable, and locks it against other runs."""

import errno
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path

from mmengine.logging import print_log

from smmix_mm.files import lock_file

from .ranks import decide_together

LOCK = '.lock'

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM}


def check_work_dir(work_dir: str | Path) -> None:
    """Refuses a work directory that is not writable, before anything is built.

    Args:
        work_dir (str | Path): Created if it does not exist.

    Raises:
        OSError: If it cannot be created or written to. The message says what to do.
    """
    with explained(Path(work_dir)):
        Path(work_dir).mkdir(parents=True, exist_ok=True)
        # The name must be unique across processes and machines.
        with tempfile.NamedTemporaryFile(dir=work_dir, prefix='.probe-') as probe:
            probe.write(b'0')
            probe.flush()


@contextmanager
def hold_work_dir(work_dir: str | Path) -> Iterator[None]:
    """Locks a work directory within the block, so that no other run trains there or removes its checkpoints.

    The first rank holds the lock. The operating system releases it when that process ends in any way.

    Args:
        work_dir (str | Path): Work directory of the run.

    Raises:
        ValueError: If another run trains there. The message names its process and machine.
        OSError: If the disk is full or not writable. The message says what to do.
    """
    with ExitStack() as held:

        def take() -> None:
            path = Path(work_dir, LOCK)
            with explained(path):
                held.enter_context(_lock(path))

        decide_together(take)
        yield


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Explains errors of a full or unwritable disk, and says what to do.

    Args:
        path (Path): The file or folder being written.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL | _FORBIDDEN:
            raise
        if error.errno in _FORBIDDEN:
            remedy = 'Make it writable'
        else:
            remedy = f'Free some space or raise the limit (disk: {_free_bytes(path)} bytes free)'
        raise OSError(
            error.errno,
            f'{path} cannot be written ({error.strerror}). {remedy}, or choose another --work-dir. Earlier checkpoints '
            'are unchanged; continue from them with --resume',
        ) from error


def _lock(path: Path) -> AbstractContextManager:
    """Locks a file and returns it open; a null context if the file system has no locks."""
    file, work_dir = path.open('a+'), path.parent
    try:
        locked = lock_file(file, wait=False)
    except OSError as error:
        file.close()
        print_log(
            f'{work_dir} cannot be locked ({error}). Make sure that no other run trains there.',
            'current',
            logging.WARNING,
        )
        return nullcontext()
    if not locked:
        file.seek(0)
        holder = file.read()
        file.close()
        raise ValueError(
            f'another run trains in {work_dir}: {holder}. Its checkpoints would be overwritten; end that process, or '
            'choose another --work-dir'
        )
    file.truncate(0)
    file.write(f'process {os.getpid()} on {socket.gethostname()}')
    file.flush()
    return file


def _free_bytes(path: Path) -> int:
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    return shutil.disk_usage(folder).free
