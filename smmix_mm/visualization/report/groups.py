"""Groups of runs that differ in their seed only, and what differs between groups."""

import os
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .runs import SEED, Run

# Ends of names such as cutmix/seed-, what runs of several seeds have in common.
_SEED_IN_NAME = re.compile(r'[-_/. ]*(seed)?[-_/. ]*\d*$')

# The steps that all runs logged, and the values of all runs at each.
Curve = tuple[list[float], list[list[float]]]


@dataclass(eq=False)
class Group:
    """Runs with the same settings but for the seed.

    Attributes:
        name (str): What the names of its runs have in common.
        runs (list[Run]): At least one.
    """

    name: str
    runs: list[Run]

    @cached_property
    def counted(self) -> list[Run]:
        """The runs that means are taken over: the finished ones or, if none is, all that have logged anything."""
        logged = [run for run in self.runs if run.log.steps or run.log.scores]
        return [run for run in logged if run.finished] or logged

    @property
    def seeds(self) -> list[int | None]:
        return [run.seed for run in self.runs]

    def finals(self, score: str) -> dict[Run, float]:
        """Returns the last value of a score in each run that counts."""
        curves = {run: run.log.score_curve(score) for run in self.counted}
        return {run: list(curve.values())[-1] for run, curve in curves.items() if curve}

    def step_curve(self, name: str) -> Curve:
        return _join([run.log.step_curve(name) for run in self.counted])

    def score_curve(self, score: str) -> Curve:
        return _join([run.log.score_curve(score) for run in self.counted])

    @property
    def step_seconds(self) -> float | None:
        """The median of the logged times of a step, including waiting for data."""
        times = [value for run in self.counted for value in run.log.step_curve('time').values()]
        return statistics.median(times) if times else None

    @property
    def memory(self) -> float | None:
        """The peak memory in MB."""
        return max((run.memory for run in self.counted if run.memory is not None), default=None)


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Puts runs with the same settings but for the seed into one group, in the order of the first of each.

    A setting that names a file of another run, such as the checkpoint of a pretrained backbone, counts as the group of
    that run: transfers from several seeds of one pretraining are one group.
    """
    owners = {run.folder.resolve(): run for run in runs}
    keys: dict[Run, Any] = {}

    def key_of(run: Run) -> Any:
        if run not in keys:
            # For a run that names its own files, too.
            keys[run] = run
            if run.config is not None:
                keys[run] = tuple(sorted((name, plain(value)) for name, value in run.settings.items() if name != SEED))
        return keys[run]

    def plain(value: Any) -> Any:
        if isinstance(value, str) and '/' in value:
            parents = Path(value).resolve().parents
            owner = next((owners[parent] for parent in parents if parent in owners), None)
            if owner is not None:
                return 'file of', key_of(owner)
        return repr(value)

    members: dict[Any, list[Run]] = {}
    for run in runs:
        members.setdefault(key_of(run), []).append(run)
    groups = [Group(_common_name(members), members) for members in members.values()]
    return _without_repeated_names(groups)


def _join(curves: Sequence[dict[float, float]]) -> Curve:
    curves = [curve for curve in curves if curve]
    steps = [step for step in curves[0] if all(step in curve for curve in curves)] if curves else []
    return steps, [[curve[step] for curve in curves] for step in steps]


def find_differences(groups: Sequence[Group]) -> dict[str, list[str]]:
    """Returns the settings that differ between groups: by dotted name, the value of each group, '' if it has none."""
    settings = [group.runs[0].settings for group in groups]
    # Nothing is known of a run without a config, so that it does not differ.
    known = [index for index, values in enumerate(settings) if values]
    names = dict.fromkeys(name for values in settings for name in values if name != SEED)
    rows = {name: [str(values[name]) if name in values else '' for values in settings] for name in names}
    return {name: row for name, row in rows.items() if len({row[index] for index in known}) > 1}


def _common_name(runs: Sequence[Run]) -> str:
    if len(runs) == 1:
        return runs[0].name
    shared = _SEED_IN_NAME.sub('', os.path.commonprefix([run.name for run in runs]))  # noqa: RUF071 - seed-0, seed-1
    return shared or runs[0].folder.resolve().parent.name


def _without_repeated_names(groups: Sequence[Group]) -> list[Group]:
    names = [group.name for group in groups]
    for group in groups:
        if names.count(group.name) > 1:
            group.name = f'{group.name} ({", ".join(run.name for run in group.runs)})'
    return list(groups)
