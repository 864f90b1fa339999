"""Reads the values that mmengine logged in the work directory of a run."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# The name of the folder that mmengine makes for each start of a run.
TIMESTAMP = re.compile(r'\d{8}_\d{6}')
# What of a training step is drawn, and what its values are checked for.
DRAWN = re.compile(r'loss|acc')
# What validation logs beside its scores.
COSTS = {'time', 'data_time', 'memory', 'step', 'iter', 'epoch'}


@dataclass
class Log:
    """The values that a run and its resumptions logged.

    Attributes:
        steps (list[dict]): Values of training steps by name, with ``step`` and, in runs by epoch, ``epoch``.
        scores (list[dict]): Values of validations by name, with ``step``.
        unit (str): What the ``step`` of ``scores`` counts, 'epoch' or 'iteration'.
        problems (list[str]): What could not be read.
    """

    steps: list[dict[str, float]] = field(default_factory=list)
    scores: list[dict[str, float]] = field(default_factory=list)
    unit: str = 'epoch'
    problems: list[str] = field(default_factory=list)

    def step_curve(self, name: str) -> dict[float, float]:
        """Returns the values that training steps logged under a name, by step."""
        return {row['step']: row[name] for row in self.steps if name in row}

    def score_curve(self, name: str) -> dict[float, float]:
        """Returns the values that validations logged under a name, by step."""
        return {row['step']: row[name] for row in self.scores if name in row}

    def step_names(self) -> list[str]:
        """Returns the names of the losses and accuracies of training steps, in the order of the log."""
        return _names(self.steps, lambda name: DRAWN.search(name))

    def score_names(self) -> list[str]:
        return _names(self.scores, lambda name: name not in COSTS)


def read_log(files: Sequence[Path]) -> Log:
    """Joins the ``scalars.json`` of all starts of a run.

    A resumed run repeats the steps after its checkpoint. Of an earlier start, values from the step on at which a later
    one begins are left out, so that a training from scratch in the same folder replaces the former one.

    Args:
        files (Sequence[Path]): In the order in which they were written.

    Returns:
        Log: Empty if there are no files, or nothing in them.
    """
    log = Log()
    for path in files:
        part = _read_file(path)
        if part.steps:
            first = part.steps[0]
            begin = first.get('epoch', first['step']) if log.unit == 'epoch' else first['step']
            log.steps = [row for row in log.steps if row['step'] < first['step']]
            log.scores = [row for row in log.scores if row['step'] < begin]
        if part.scores:
            log.unit = part.unit
        log.steps += part.steps
        log.scores += part.scores
        log.problems += part.problems
    log.problems += _find_non_finite(log)
    return log


def _read_file(path: Path) -> Log:
    log, before = Log(), []
    for row in _read_rows(path, log.problems):
        if 'iter' in row:
            log.steps.append(row)
        else:
            log.scores.append(row)
            before.append(log.steps[-1] if log.steps else None)
    # Validations are logged by epoch or by iteration (`log_metric_by_epoch`), and loops by iteration name epoch 0.
    if any(step and step.get('epoch') != row['step'] for step, row in zip(before, log.scores, strict=True)):
        log.unit = 'iteration'
        for step, row in zip(before, log.scores, strict=True):
            row['step'] = max(row['step'], step['step'] if step else 0)
    return log


def _read_rows(path: Path, problems: list[str]) -> Iterator[dict[str, float]]:
    try:
        text = path.read_text(errors='replace')
    except OSError as error:
        problems.append(f'{path} cannot be read: {error.strerror}')
        return
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        row = _parse(line)
        if row is not None:
            yield row
        elif number == len(lines) and not text.endswith('\n'):
            problems.append(f'{path}: the last line is cut off and was left out; the run writes it, or was killed')
        elif line.strip():
            problems.append(f'{path}: line {number} is not a JSON object with a step, and was left out')


def _parse(line: str) -> dict[str, float] | None:
    try:
        content = json.loads(line)
    except ValueError:
        return None
    if not isinstance(content, dict) or not _is_number(content.get('step')) or not math.isfinite(content['step']):
        return None
    return {name: value for name, value in content.items() if _is_number(value)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _names(rows: Sequence[dict], wanted: Any) -> list[str]:
    return [name for name in dict.fromkeys(name for row in rows for name in row) if wanted(name)]


def _find_non_finite(log: Log) -> list[str]:
    problems = []
    curves = [
        *((name, 'step', log.step_curve(name)) for name in log.step_names()),
        *((name, log.unit, log.score_curve(name)) for name in log.score_names()),
    ]
    for name, unit, curve in curves:
        where = [step for step, value in curve.items() if not math.isfinite(value)]
        if where:
            problems.append(f'{name} is not finite in {len(where)} lines of the log, first at {unit} {where[0]:g}')
    return problems
