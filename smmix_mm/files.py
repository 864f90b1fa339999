"""Atomic writing of files and folders, and file locks."""

import errno
import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO

from mmengine.dist import barrier, is_main_process

# Suffix of a file that is being written, or was when its run was killed: .epoch_3.pth.unfinished
UNFINISHED = '.unfinished'
# And of a folder that is being replaced.
OUTDATED = f'.outdated{UNFINISHED}'


def write_whole(path: str | Path, write: Callable[[Path], object], together: bool = False, sync: bool = True) -> None:
    """Writes a file or folder atomically: after a crash either the old one or the new one is there, complete.

    A folder cannot be replaced in one step. In between, the old one has a temporary name, which
    :func:`remove_unfinished` takes back.

    Args:
        path (str | Path): Replaced if it exists.
        write (Callable[[Path], object]): Writes to the temporary path that it is given, beside the final one. It may
            write nothing, as on ranks other than the first.
        together (bool): Whether all ranks call this function, for example each to write a part of a folder. Defaults
            to False: only this process writes.
        sync (bool): Whether to wait until all data are on the disk, so that they survive a power failure. Defaults to
            True.

    Raises:
        OSError: If it cannot be written. An existing file or folder is then unchanged.
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
        # A read-only disk raises an error even on removing a file that does not exist.
        if places and unfinished.exists():
            remove(unfinished)
        raise


def free_name(folder: Path, name: Path, taken: set[Path]) -> Path:
    """A path of a file below a folder, with a number if another one of this run has the name."""
    path, number = folder / name, 1
    while path in taken:
        number += 1
        path = folder / name.with_name(f'{name.stem}_{number}{name.suffix}')
    taken.add(path)
    return path


def remove(path: Path) -> None:
    """Removes a file or a folder if it exists."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_unfinished(folder: str | Path) -> None:
    """Removes the unfinished files that a killed run left in a folder.

    If the run was killed while it replaced a folder, after the old one was renamed, the old one gets its name back.
    """
    for path in Path(folder).glob(f'.*{UNFINISHED}'):
        former = path.with_name(path.name[1:].removesuffix(OUTDATED))
        if path.name.endswith(OUTDATED) and not former.exists():
            path.replace(former)
        else:
            remove(path)


def lock_file(file: IO, wait: bool = True) -> bool:
    """Locks an open file until it is closed or this process ends, however it ends.

    The lock belongs to the process: a forked process, such as a dataloader worker, does not inherit it.

    Args:
        file (IO): Open for writing.
        wait (bool): Whether to wait while another process holds the lock. Defaults to True.

    Returns:
        bool: Whether the file is locked now; False if another process holds the lock.

    Raises:
        OSError: If the file system does not support locks.
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
        # The old one is renamed first and removed last.
        outdated = path.with_name(f'.{path.name}{OUTDATED}')
        remove(outdated)
        path.replace(outdated)
        unfinished.replace(path)
        shutil.rmtree(outdated)
    else:
        unfinished.replace(path)
    if sync:
        _sync(path.parent)


def _sync(path: Path) -> None:
    """Waits until a file or folder is on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
