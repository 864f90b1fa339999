"""Finds the runs below a folder, and what is known of each."""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import FlexibleRunner, Runner

from .logs import TIMESTAMP, Log, read_log

TASKS = {'mmpretrain': 'Classification', 'mmdet': 'Detection', 'mmseg': 'Segmentation'}
SEED = 'randomness.seed'
# Other names at the top of a config are variables, whose values stand in these too.
_READ_BY_RUNNER = {*signature(Runner).parameters, *signature(FlexibleRunner).parameters, 'model_wrapper_cfg'}
# They say where and from which state a training runs, or are not used by it.
_NO_SETTINGS = {
    'work_dir',
    'experiment_name',
    'cfg',
    'resume',
    'launcher',
    'test_dataloader',
    'test_cfg',
    'test_evaluator',
}
# They differ between any two starts, or are long.
_NO_VERSIONS = {'numpy_random_seed', 'PyTorch compiling details'}


@dataclass(eq=False)
class Run:
    """One training: its work directory, with all its starts.

    Attributes:
        folder (Path): The work directory.
        starts (list[Path]): The folders of its starts, named by their time, oldest first.
        name (str): Its name in the report.
        log (Log): What it logged.
        config_path (Path | None): The latest config that could be read.
        config (Config | None): Its content.
        problems (list[str]): What could not be read.
    """

    folder: Path
    starts: list[Path]
    name: str = ''
    log: Log = field(default_factory=Log)
    config_path: Path | None = None
    config: Config | None = None
    problems: list[str] = field(default_factory=list)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The settings of the training by their dotted names."""
        cfg = self.config.to_dict() if self.config else {}
        used = {name: value for name, value in cfg.items() if name in _READ_BY_RUNNER - _NO_SETTINGS}
        if cfg.get('resume'):
            # The checkpoint that it went on from.
            used.pop('load_from', None)
        return dict(_flatten(used))

    @property
    def seed(self) -> int | None:
        return self.settings.get(SEED)

    @cached_property
    def task(self) -> str:
        scope = self.config.get('default_scope') if self.config else None
        names = ' '.join(self.log.score_names())
        by_scores = {'mmseg': 'mIoU', 'mmdet': 'mAP', 'mmpretrain': 'accuracy/'}
        scope = scope if scope in TASKS else next((key for key, part in by_scores.items() if part in names), None)
        return TASKS.get(scope, 'Other runs')

    @cached_property
    def progress(self) -> tuple[float, float | None, str]:
        """How far the log goes, how far the config wants to go (None if unknown), and the unit of both."""
        loop = (self.config.get('train_cfg') if self.config else None) or {}
        unit = 'epoch' if loop.get('max_epochs') else 'iteration' if loop.get('max_iters') else self.log.unit
        steps = [row.get('epoch', 0) if unit == 'epoch' else row['step'] for row in self.log.steps]
        # An epoch whose steps are logged may still run; it is over when it has been validated or saved.
        if unit == 'epoch':
            steps = [epoch - 1 for epoch in steps]
        scores = [row['step'] for row in self.log.scores] if self.log.unit == unit else []
        return max([0, *steps, *scores, *self._saved(unit)]), loop.get('max_epochs') or loop.get('max_iters'), unit

    @property
    def finished(self) -> bool:
        """Whether it went as far as its config says, or that is unknown."""
        done, wanted, _ = self.progress
        return wanted is None or done >= wanted

    @property
    def memory(self) -> float | None:
        """The peak memory in MB: of the GPU, or what tools/benchmarks/compare.py measured of the process."""
        logged = max(self.log.step_curve('memory').values(), default=None)
        result = self.folder / 'result.json'
        if logged is not None or not result.is_file():
            return logged
        try:
            return float(json.loads(result.read_text())['memory_mb'])
        except (ValueError, KeyError, TypeError):
            return None

    @cached_property
    def environment(self) -> dict[str, str]:
        """The versions in the header of the latest log file."""
        header = self._header.partition('System environment:')[2].partition('Runtime environment:')[0]
        return {name: value for name, value in _pairs(header).items() if name not in _NO_VERSIONS}

    @property
    def command(self) -> str | None:
        """A command that repeats the training from its saved config."""
        if self.config is None:
            return None
        devices = int(_pairs(self._header).get('GPU number', 1))
        options = ' --cfg-options resume=False load_from=None' if self.config.get('resume') else ''
        tool = 'python tools/train.py' if devices == 1 else 'bash tools/dist_train.sh'
        count = '' if devices == 1 else f' {devices}'
        return f'{tool} {self.config_path}{count} --work-dir {self.folder}-again{options}'

    @cached_property
    def _header(self) -> str:
        for start in reversed(self.starts):
            for path in sorted(start.glob('*.log')):
                with path.open(errors='replace') as file:
                    text = file.read(20_000)
                if 'System environment:' in text:
                    return text.partition('Config:')[0]
        return ''

    def _saved(self, unit: str) -> list[int]:
        path = self.folder / 'last_checkpoint'
        name = path.read_text(errors='replace') if path.is_file() else ''
        found = re.search(rf'{"epoch" if unit == "epoch" else "iter"}_(\d+)\.pth\s*$', name)
        return [int(found[1])] if found else []


def find_runs(folders: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """Finds and reads all runs below some folders.

    Args:
        folders (Sequence[Path]): Work directories, or folders of them.

    Returns:
        tuple[list[Run], list[str]]: The runs, in the order of the folders and within one by the time of their first
        start, and what is wrong with the folders.
    """
    starts: dict[Path, list[Path]] = {}
    problems = []
    for folder in map(Path, folders):
        found = sorted(path for path in folder.rglob('*') if TIMESTAMP.fullmatch(path.name) and path.is_dir())
        for start in sorted(found, key=lambda path: (path.name, path)):
            known = starts.setdefault(start.parent.resolve(), [])
            if start not in known:
                known.append(start)
        if not found:
            where = '<run>/<date>_<time>/vis_data/scalars.json'
            missing = f'has no logs of mmengine below it ({where})' if folder.is_dir() else 'is no folder'
            problems.append(f'{folder} {missing}')
    runs = [_read_run(paths) for paths in starts.values()]
    _give_names(runs := [run for run in runs if not _is_test(run)])
    return runs, problems


def _read_run(starts: list[Path]) -> Run:
    folder = starts[0].parent
    run = Run(folder, starts)
    run.log = read_log([path for start in starts for path in (start / 'vis_data').glob('scalars.json')])
    run.problems += run.log.problems
    saved = [path for start in reversed(starts) for path in (start / 'vis_data').glob('config.py')]
    for path in [*saved, *sorted(folder.glob('*.py'), key=lambda path: -path.stat().st_mtime)]:
        try:
            run.config, run.config_path = Config.fromfile(path, import_custom_modules=False), path
            break
        except Exception as error:
            run.problems.append(f'{path} cannot be read as a config: {type(error).__name__}: {error}')
    if run.config is None:
        run.problems.append('no config was found; the run is not compared with others')
    if not run.log.steps and not run.log.scores:
        run.problems.append('nothing has been logged yet')
    elif not run.finished:
        done, wanted, unit = run.progress
        run.problems.append(f'not finished: {unit} {done:g} of {wanted}; it is running, or was stopped')
    return run


def _is_test(run: Run) -> bool:
    """Whether it is a start of tools/test.py, which trains nothing."""
    return run.config is not None and not run.config.get('train_cfg') and not run.log.steps


def _give_names(runs: Sequence[Run]) -> None:
    """Names runs by their path below the folder that holds them all."""
    folders = [run.folder.resolve() for run in runs]
    base = Path(os.path.commonpath(folders)) if folders else Path()
    base = base.parent if base in folders else base
    for run, folder in zip(runs, folders, strict=True):
        run.name = folder.relative_to(base).as_posix()


def _flatten(value: Any, name: str = '') -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        items = value.items()
    elif isinstance(value, list | tuple) and any(isinstance(item, Mapping | list | tuple) for item in value):
        items = enumerate(value)
    else:
        yield name, value
        return
    for key, item in items:
        yield from _flatten(item, f'{name}.{key}' if name else str(key))


def _pairs(text: str) -> dict[str, str]:
    return dict(re.findall(r'^    (\S[^:\n]*): (.+)$', text, re.MULTILINE))
