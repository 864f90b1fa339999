"""The tables of results, as text."""

from collections.abc import Mapping, Sequence

import numpy as np

from .groups import Group
from .runs import Run

# The parts of a COCO metric: shown for single runs only.
PARTS_OF_A_SCORE = ('_50', '_75', '_s', '_m', '_l')
NOTHING = '-'


def main_scores(groups: Sequence[Group]) -> list[str]:
    """Returns the names of the scores that groups are compared by."""
    return [name for name in all_scores(groups) if not name.endswith(PARTS_OF_A_SCORE)]


def all_scores(groups: Sequence[Group]) -> list[str]:
    return list(dict.fromkeys(name for group in groups for run in group.runs for name in run.log.score_names()))


def results_table(groups: Sequence[Group]) -> tuple[list[str], list[list[str]]]:
    """Compares groups with the first of them.

    Args:
        groups (Sequence[Group]): Of one task.

    Returns:
        tuple[list[str], list[list[str]]]: The head and a row for each group: mean and sample standard deviation of the
        final scores, their differences to the first group, time per step, memory and how many runs are finished.
    """
    scores = main_scores(groups)
    head = [
        'group',
        'runs',
        *(name for score in scores for name in (score, 'difference')),
        'ms per step',
        'memory (MB)',
    ]
    digits = {score: count_digits(groups, score) for score in scores}
    rows = []
    for group in groups:
        row = [group.name, _count(group)]
        for score in scores:
            finals = group.finals(score)
            row += [_mean(list(finals.values()), digits[score]), _difference(groups[0], group, score, digits[score])]
        row += [_rounded(group.step_seconds and 1000 * group.step_seconds), _rounded(group.memory)]
        rows.append(row)
    return head, rows


def runs_table(groups: Sequence[Group]) -> tuple[list[str], list[list[str]]]:
    """Lists the final scores of every run, and how far it is."""
    scores = all_scores(groups)
    digits = {score: count_digits(groups, score) for score in scores}
    rows = []
    for run in (run for group in groups for run in group.runs):
        done, wanted, unit = run.progress
        curves = {score: list(run.log.score_curve(score).values()) for score in scores}
        finals = [f'{curve[-1]:.{digits[score]}f}' if curve else NOTHING for score, curve in curves.items()]
        length = f'{done:g} {unit}s' if wanted is None else f'{done:g} of {wanted} {unit}s'
        rows.append([run.name, NOTHING if run.seed is None else str(run.seed), *finals, length])
    return ['run', 'seed', *scores, 'length'], rows


def count_digits(groups: Sequence[Group], score: str) -> int:
    """Returns how many digits to write after the point: scores from 0 to 1 need more than those in per cent."""
    values = [value for group in groups for run in group.runs for value in run.log.score_curve(score).values()]
    return 3 if all(not abs(value) > 1 for value in values) else 2


def _mean(values: Sequence[float], digits: int) -> str:
    if not values:
        return NOTHING
    mean = f'{np.mean(values):.{digits}f}'
    return mean if len(values) == 1 else f'{mean} ± {_spread(values):.{digits}f}'


def _difference(first: Group, group: Group, score: str, digits: int) -> str:
    ours, theirs = group.finals(score), first.finals(score)
    if group is first or not ours or not theirs:
        return NOTHING
    text = f'{np.mean(list(ours.values())) - np.mean(list(theirs.values())):+.{digits}f}'
    pairs = _pair(ours, theirs)
    return text if len(pairs) < 2 else f'{text} ± {_spread([left - right for left, right in pairs]):.{digits}f}'


def _pair(ours: Mapping[Run, float], theirs: Mapping[Run, float]) -> list[tuple[float, float]]:
    """Returns the scores of runs with the same seed; none unless the seeds of both groups are the same."""
    left, right = ({run.seed: value for run, value in finals.items()} for finals in (ours, theirs))
    if len(left) != len(ours) or len(right) != len(theirs) or left.keys() != right.keys():
        return []
    return [(value, right[seed]) for seed, value in left.items()]


def _spread(values: Sequence[float]) -> float:
    """Returns the sample standard deviation, which is not a number if a run ended with infinity."""
    with np.errstate(invalid='ignore'):
        return float(np.std(values, ddof=1))


def _count(group: Group) -> str:
    """Returns the number of runs, and if not all are finished, of how many."""
    finished = sum(run.finished and bool(run.log.steps or run.log.scores) for run in group.runs)
    return str(len(group.runs)) if finished == len(group.runs) else f'{finished} of {len(group.runs)} finished'


def _rounded(value: float | None) -> str:
    return NOTHING if value is None else f'{value:.0f}'
