"""Files and folders that are whole or not there, and files that one process holds."""

import errno
import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO

from mmengine.dist import barrier, is_main_process

# A file of a run that was killed while it wrote: .epoch_3.pth.unfinished
UNFINISHED = '.unfinished'


def write_whole(path: str | Path, write: Callable[[Path], object], together: bool = False, sync: bool = True) -> None:
    """Puts a file or folder in place in one step: a crash leaves the former one or the new one, each whole.

    Args:
        path (str | Path): Replaced if it exists.
        write (Callable[[Path], object]): Writes to the path that it is given, beside the final one. It may decide to
            write nothing, as ranks other than the first do.
        together (bool): Whether all ranks call this, maybe each to write a part of a folder. Defaults to False: this
            process alone writes.
        sync (bool): Whether to wait until the disk has all of it, so that it outlives a power failure. Defaults to
            True.

    Raises:
        OSError: If it cannot be written; what was there is untouched then.
    """
    path = Path(path)
    unfinished = path.with_name(f'.{path.name}{UNFINISHED}')
    places = not together or is_main_process()
    try:
        if not together and unfinished.exists():
            remove(unfinished)
        write(unfinished)
        if together:
            barrier()
        if places:
            _put_in_place(unfinished, path, sync)
    except BaseException:
        # A disk that must not be written to refuses to remove what is not there, too.
        if places and unfinished.exists():
            remove(unfinished)
        raise


def remove(path: Path) -> None:
    """Removes a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_unfinished(folder: str | Path) -> None:
    """Removes what a killed run left half-written."""
    for path in Path(folder).glob(f'.*{UNFINISHED}'):
        remove(path)


def lock_file(file: IO, wait: bool = True) -> bool:
    """Locks an open file until it is closed or this process ends, however it ends.

    The lock is the process's: one that it forks, such as a dataloader worker, does not inherit it.

    Args:
        file (IO): Open for writing.
        wait (bool): Whether to wait for another process that holds it. Defaults to True.

    Returns:
        bool: Whether it is locked now; False if another process holds it.

    Raises:
        OSError: If the file system has no locks.
    """
    try:
        fcntl.lockf(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        raise
    return True


def _put_in_place(unfinished: Path, path: Path, sync: bool) -> None:
    for part in (unfinished, *unfinished.rglob('*')) if sync else ():
        _sync(part)
    if path.is_dir():
        # A folder cannot be replaced in one step; the name of this one says that it is outdated.
        outdated = path.with_name(f'.{path.name}.outdated{UNFINISHED}')
        remove(outdated)
        path.replace(outdated)
        unfinished.replace(path)
        shutil.rmtree(outdated)
    else:
        unfinished.replace(path)
    if sync:
        _sync(path.parent)


def _sync(path: Path) -> None:
    """Waits until the disk has it."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
