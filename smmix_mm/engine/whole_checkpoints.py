"""Checkpoints that are whole or not there: how they are written, told from torn ones, and found again."""

import errno
import logging
import os
import shutil
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.dist import barrier, is_main_process
from mmengine.logging import print_log

from smmix_mm.engine.checkpoint import read_checkpoint
from smmix_mm.engine.distributed import decide_together

# A file of a run that was killed while it wrote: .epoch_3.pth.unfinished
UNFINISHED = '.unfinished'
LAST_CHECKPOINT = 'last_checkpoint'

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM}


def check_whole(path: str | Path) -> str | None:
    """What is wrong with a checkpoint, None if it is whole.

    The checksums of all that is in the file are compared, which reads it once from end to end.

    Args:
        path (str | Path): A file of ``torch.save``, or a folder of such, as sharded checkpoints are.
    """
    path = Path(path)
    if path.is_dir():
        parts = sorted(part for part in path.rglob('*.p*') if part.suffix in ('.pt', '.pth'))
        faults = (f'holds {part.name}, which {fault}' for part in parts if (fault := check_whole(part)))
        return next(faults, None) if parts else 'is a folder without checkpoints'
    if not path.is_file():
        return 'does not exist'
    size = path.stat().st_size
    try:
        with path.open('rb') as file:
            is_archive = file.read(2) == b'PK'
        if not is_archive:
            # The format of torch before 1.6, which has no checksums.
            read_checkpoint(path)
            return None
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            return f'is corrupt in {damaged}'
        # torch looks at more of the archive's directory.
        read_checkpoint(path, mapped=True)
    # Whatever damaged files make the readers of zip files and pickles do.
    except Exception as error:
        return f'is truncated or corrupt ({size} bytes: {error})'
    return None


def find_whole_checkpoint(work_dir: str | Path) -> str | None:
    """The checkpoint to go on from: the last one that was written, or if that is torn, the one before.

    What is torn is named in the log.

    Args:
        work_dir (str | Path): Of the run. A folder that was moved or copied is searched itself, not where it was.

    Returns:
        str | None: None if there are no checkpoints.

    Raises:
        ValueError: If there are checkpoints and none is whole.
    """
    torn = []
    for path in _candidates(Path(work_dir)):
        fault = check_whole(path)
        if fault is None:
            if torn:
                print_log(f'The checkpoint before is used: {path}', logger='current', level=logging.WARNING)
            return str(path)
        torn.append(f'{path} {fault}')
        print_log(f'Checkpoint {path} cannot be used: it {fault}.', logger='current', level=logging.WARNING)
    if torn:
        raise ValueError(
            f'{work_dir} has checkpoints, but none that is whole: {"; ".join(torn)}. Name a whole one by --resume '
            'PATH, or choose another --work-dir to start anew'
        )
    return None


def find_start(work_dir: str | Path, load_from: str | None) -> str | None:
    """The checkpoint that ``resume=True`` goes on from.

    Args:
        work_dir (str | Path): Of the run.
        load_from (str, optional): The checkpoint that the user named.

    Returns:
        str | None: A whole one; what is named by a URL is returned as it is. None if there is none to go on from.

    Raises:
        ValueError: If the one that is named, or all there are, are torn.
    """
    if load_from is None:
        return find_whole_checkpoint(work_dir)
    fault = None if '://' in load_from else check_whole(load_from)
    if fault is not None:
        beside = [path for path in _by_progress(Path(load_from).parent) if check_whole(path) is None]
        instead = f'the newest whole one beside it is {beside[0]}' if beside else 'there is no whole one beside it'
        raise ValueError(f'checkpoint {load_from} {fault}; {instead}')
    return load_from


def find_start_together(work_dir: str | Path, load_from: str | None) -> str | None:
    """:func:`find_start` of the first rank, told to all; so are its errors."""
    return decide_together(lambda: find_start(work_dir, load_from))


def has_checkpoints(work_dir: str | Path) -> bool:
    """Whether there is anything that a run could go on from, whole or torn.

    Args:
        work_dir (str | Path): Of the run.
    """
    return next(_candidates(Path(work_dir)), None) is not None


def _candidates(work_dir: Path) -> Iterator[Path]:
    """The last checkpoint that was written, then the others that can be gone on from, the furthest first."""
    pointer = work_dir / LAST_CHECKPOINT
    named = pointer.read_text(errors='replace').strip().replace('\0', '') if pointer.is_file() else ''
    tried, folders = set(), [work_dir]
    if named:
        # In a folder that was moved or copied the file of that name here is meant.
        moved = work_dir / Path(named).name
        first = moved if moved.exists() else Path(named)
        yield first
        tried.add(first)
        folders.append(first.parent)
    for folder in OrderedDict.fromkeys(folders):
        yield from (path for path in _by_progress(folder) if path not in tried)


def _by_progress(folder: Path) -> list[Path]:
    """The checkpoints of a folder that can be gone on from, the furthest first; unreadable ones come first of all."""
    progress = {}
    for path in folder.glob('*.pth'):
        try:
            content = {} if path.is_dir() else read_checkpoint(path, mapped=True)
            done = content.get('meta', {}).get('iter', 0)
        # It may have been the furthest; its fault is to be named.
        except Exception:
            progress[path] = (float('inf'), path.name)
            continue
        # Checkpoints for testing, such as best_*.pth, have no optimiser.
        if path.is_dir() or {'optimizer', 'message_hub'} <= content.keys():
            progress[path] = (done, path.name)
    return sorted(progress, key=progress.get, reverse=True)


def write_whole(path: str | Path, write: Callable[[Path], None], together: bool = True) -> None:
    """Puts a file or folder in place in one step: a crash leaves the former one or the new one, each whole.

    Args:
        path (str | Path): Replaced if it exists.
        write (Callable[[Path], None]): Writes to the path that it is given, beside the final one. It may decide to
            write nothing, as ranks other than the first do.
        together (bool): Whether all ranks call this, maybe each to write a part of a folder. Defaults to True.

    Raises:
        OSError: If the disk is full or must not be written to, with what to do; nothing is changed then.
    """
    path = Path(path)
    unfinished = path.with_name(f'.{path.name}{UNFINISHED}')
    try:
        with explained(path):
            write(unfinished)
            if together:
                barrier()
            if not is_main_process():
                return
            for part in (unfinished, *unfinished.rglob('*')):
                _sync(part)
            if path.is_dir():
                # A folder cannot be replaced in one step; the name of this one says that it is outdated.
                outdated = path.with_name(f'.{path.name}.outdated{UNFINISHED}')
                path.replace(outdated)
                unfinished.replace(path)
                shutil.rmtree(outdated)
            else:
                unfinished.replace(path)
            _sync(path.parent)
    except BaseException:
        # A disk that must not be written to refuses to remove what is not there, too.
        if is_main_process() and unfinished.exists():
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


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Makes errors of a full disk or one that must not be written to say so.

    Args:
        path (Path): What is written.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL | _FORBIDDEN:
            raise
        if error.errno in _FORBIDDEN:
            what = 'the place must not be written to. Mend its permissions'
        else:
            what = f'no room is left (disk: {_free_bytes(path)} bytes free). Make room'
        raise OSError(
            error.errno,
            f'{path} cannot be written ({error.strerror}): {what}, or choose another --work-dir. The checkpoints that '
            'were there are untouched; go on from them with --resume',
        ) from error


def _free_bytes(path: Path) -> int:
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    return shutil.disk_usage(folder).free


def _sync(path: Path) -> None:
    """Waits until the disk has it."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
