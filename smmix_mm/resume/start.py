"""Finds the checkpoint that a run starts from, reads it once, checks it, and passes it to mmengine."""

import logging
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakSet

from mmengine.dist import is_main_process
from mmengine.logging import print_log
from mmengine.registry import MODELS
from mmengine.runner import Runner
from torch import Tensor

from smmix_mm.checkpoint.fit import check_fit
from smmix_mm.checkpoint.guard import hand_on, without_foreign
from smmix_mm.checkpoint.weights import find_weights, read_checkpoint
from smmix_mm.checkpoint.whole import TornCheckpointError, check_whole, read_whole

from .ranks import decide_together

LAST_CHECKPOINT = 'last_checkpoint'

# Runners whose checkpoint is already checked and passed on.
_prepared: WeakSet = WeakSet()


@dataclass(frozen=True)
class Start:
    """A complete checkpoint.

    Attributes:
        path: A file, a folder of a sharded model, or a URL.
        content: Its content, as returned by :func:`smmix_mm.checkpoint.read_whole`; None for folders and URLs, which
            mmengine reads.
    """

    path: str
    content: dict[str, Any] | None = None


def prepare_start(runner: Runner) -> None:
    """Finds and checks the checkpoint that a run starts from, and passes its content to mmengine's loading.

    A checkpoint to resume from has to fit the model entirely; if it is corrupt, the previous one is used. When a
    classifier starts from weights (``load_from``), the backbone has to fit. Detectors and segmentors, whose heads
    differ in more ways, are left to mmengine. The train loops of this package call this when they are built; a second
    call for the same runner does nothing.

    Args:
        runner (Runner): A ``Runner`` or ``FlexibleRunner``, before it trains.

    Raises:
        FileNotFoundError: If ``load_from`` names a missing file.
        ValueError: If the checkpoint cannot be read, has another architecture, or is corrupt and no earlier one is
            complete.
    """
    if runner in _prepared or runner._has_loaded:
        return
    _prepared.add(runner)
    if runner._resume:
        named = runner._resume if isinstance(runner._resume, str) else runner._load_from
        start = find_start_together(runner.work_dir, named)
        runner._load_from, runner._resume = start and start.path, True
    elif runner._load_from is not None:
        start = _read(str(runner._load_from))
        runner._load_from = start.path
    else:
        return
    if start is None or start.content is None:
        return
    content = without_foreign(start.content, start.path)
    if runner._resume or runner.cfg.get('default_scope') == 'mmpretrain':
        _check_architecture(runner, find_weights(content, start.path), start.path)
    hand_on(start.path, content)


def _check_architecture(runner: Runner, weights: Mapping[str, Tensor], source: str) -> None:
    # FlexibleRunner builds the model later.
    if isinstance(runner.model, Mapping):
        runner.model = MODELS.build(runner.model)
    parts = {name.partition('.')[0] for name in [*weights, *runner.model.state_dict()]} - {'backbone'}
    check_fit(runner.model, weights, source, may_differ=() if runner._resume else parts)


def find_start_together(work_dir: str | Path, named: str | None) -> Start | None:
    """Calls :func:`find_start` on the first rank; the others read the same file. Errors are raised on all ranks.

    Args:
        work_dir (str | Path): Work directory of the run.
        named (str, optional): The checkpoint that the user named.
    """
    found: list[Start | None] = []

    def find() -> str | None:
        found.append(find_start(work_dir, named))
        return found[0] and found[0].path

    path = decide_together(find)
    if is_main_process():
        return found[0]
    return None if path is None else _read(path)


def find_start(work_dir: str | Path, named: str | None) -> Start | None:
    """Finds the checkpoint that ``resume=True`` resumes from.

    Args:
        work_dir (str | Path): Work directory of the run.
        named (str, optional): The checkpoint that the user named.

    Returns:
        Start | None: None if there is no checkpoint.

    Raises:
        ValueError: If the named checkpoint, or every one found, is corrupt.
    """
    if named is None:
        return _find_whole(work_dir)
    try:
        return _read(named)
    except (FileNotFoundError, TornCheckpointError) as error:
        beside = [path for path in _by_progress(Path(named).parent) if check_whole(path) is None]
        if beside:
            instead = f'the newest complete checkpoint in its folder is {beside[0]}'
        else:
            instead = 'its folder has no complete checkpoint'
        raise ValueError(f'checkpoint {named} {_fault(error)}; {instead}') from error


def find_whole_checkpoint(work_dir: str | Path) -> str | None:
    """Finds the checkpoint to resume from: the last one written or, if it is corrupt, the previous one.

    Corrupt checkpoints are named in the log.

    Args:
        work_dir (str | Path): Work directory of the run. If it was moved or copied, its new place is searched.

    Returns:
        str | None: None if there are no checkpoints.

    Raises:
        ValueError: If there are checkpoints but none is complete.
    """
    start = _find_whole(work_dir)
    return start and start.path


def _find_whole(work_dir: str | Path) -> Start | None:
    faults = []
    for path in _candidates(Path(work_dir)):
        try:
            start = _read(path)
        except (FileNotFoundError, TornCheckpointError) as error:
            faults.append(f'{path} {_fault(error)}')
            print_log(f'Checkpoint {path} cannot be used: it {_fault(error)}.', 'current', logging.WARNING)
            continue
        if faults:
            print_log(f'The previous checkpoint is used: {path}', logger='current', level=logging.WARNING)
        return start
    if faults:
        raise ValueError(
            f'{work_dir} has checkpoints, but none is complete: {"; ".join(faults)}. Name a complete one with --resume '
            'PATH, or choose another --work-dir to start from scratch'
        )
    return None


def _read(path: str) -> Start:
    """Reads a checkpoint file; the folder of a sharded model is only checked, and a URL is left to mmengine."""
    if '://' in path:
        return Start(path)
    # mmengine also expands ~.
    if not Path(path).expanduser().is_dir():
        return Start(path, read_whole(Path(path).expanduser()))
    fault = check_whole(path)
    if fault is not None:
        raise TornCheckpointError(Path(path), fault)
    return Start(path)


def _fault(error: FileNotFoundError | TornCheckpointError) -> str:
    return getattr(error, 'fault', 'does not exist')


def has_checkpoints(work_dir: str | Path) -> bool:
    """Whether there is any checkpoint to resume from, complete or corrupt.

    Args:
        work_dir (str | Path): Work directory of the run.
    """
    return next(_candidates(Path(work_dir)), None) is not None


def _candidates(work_dir: Path) -> Iterator[str]:
    """Yields the last checkpoint written, then the other resumable ones, the most advanced first."""
    pointer = work_dir / LAST_CHECKPOINT
    named = pointer.read_text(errors='replace').strip().replace('\0', '') if pointer.is_file() else ''
    tried, folders = set(), [work_dir]
    if '://' in named:
        yield named
    elif named:
        # If the folder was moved or copied, the file of that name in it is meant.
        moved = work_dir / Path(named).name
        first = moved if moved.exists() else Path(named)
        yield str(first)
        tried.add(first)
        folders.append(first.parent)
    for folder in OrderedDict.fromkeys(folders):
        yield from (str(path) for path in _by_progress(folder) if path not in tried)


def _by_progress(folder: Path) -> list[Path]:
    """Lists the resumable checkpoints of a folder, the most advanced first; unreadable ones precede them."""
    progress = {}
    for path in folder.glob('*.pth'):
        try:
            content = {} if path.is_dir() else read_checkpoint(path, mapped=True)
            done = content.get('meta', {}).get('iter', 0)
        # It may be the most advanced one, so its fault has to be reported.
        except Exception:
            progress[path] = (float('inf'), path.name)
            continue
        # Checkpoints for testing, such as best_*.pth, have no optimizer state.
        if path.is_dir() or {'optimizer', 'message_hub'} <= content.keys():
            progress[path] = (done, path.name)
    return sorted(progress, key=progress.get, reverse=True)
