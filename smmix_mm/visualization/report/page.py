"""Puts the page together."""

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from plotly.offline import get_plotlyjs

import smmix_mm
from smmix_mm.files import write_whole

from .figures import draw_curves, templates
from .groups import Group, find_differences, group_runs
from .pictures import gather_pictures
from .runs import TASKS, Run, find_runs
from .tables import main_scores, results_table, runs_table


def save_report(
    work_dirs: Sequence[str | Path], out: str | Path, title: str = 'Training report', command: str | None = None
) -> list[str]:
    """Writes one HTML page about all runs below some folders. The page needs no network.

    It reads what mmengine's ``LocalVisBackend`` and logger left: ``<run>/<time>/vis_data/scalars.json``, the config
    beside it, and the header of the log. Runs that differ in their seed only are one group. The first group is the one
    that others are compared with.

    Args:
        work_dirs (Sequence[str | Path]): Work directories, or folders of them, of mmpretrain, mmdet and mmseg.
        out (str | Path): Path of the page. Missing folders are created.
        title (str): Title of the page. Defaults to 'Training report'.
        command (str | None): The command line that made the runs, if one did. Defaults to None: that in the
            ``comparison.json`` of tools/benchmarks/compare.py, if there is one.

    Returns:
        list[str]: What could not be read or is not complete; the page says so too.

    Raises:
        ValueError: If there are no runs.
    """
    folders, out = [Path(folder) for folder in work_dirs], Path(out)
    runs, problems = find_runs(folders)
    if not runs:
        raise ValueError(f'there is nothing to report: {"; ".join(problems)}')
    problems += [f'{run.name}: {problem}' for run in runs for problem in run.problems]
    gallery, left_out = gather_pictures(folders)
    problems += left_out
    groups = group_runs(runs)
    tasks = {
        task: [group for group in groups if group.runs[0].task == task] for task in (*TASKS.values(), 'Other runs')
    }
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / 'templates'),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template('page.html').render(
        title=title,
        written=f'{datetime.now():%Y-%m-%d %H:%M}',
        version=smmix_mm.__version__,
        runs=runs,
        groups=groups,
        problems=problems,
        sections=[_describe_task(task, members) for task, members in tasks.items() if members],
        gallery=gallery,
        command=command or _find_command(folders),
        environments=_list_environments(runs),
        plotly=get_plotlyjs(),
        templates=templates(),
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, lambda unfinished: unfinished.write_text(page, encoding='utf-8'), sync=False)
    return problems


def _describe_task(task: str, groups: Sequence[Group]) -> dict[str, Any]:
    charts = {}
    for unit in dict.fromkeys(run.log.unit for group in groups for run in group.runs if run.log.scores):
        members = [group for group in groups if group.runs[0].log.unit == unit]
        charts[f'Scores by {unit}'] = draw_curves(main_scores(members), members, Group.score_curve)
    losses = dict.fromkeys(name for group in groups for run in group.runs for name in run.log.step_names())
    charts['Training by iteration'] = draw_curves(list(losses), groups, Group.step_curve)
    return dict(
        task=task,
        groups=groups,
        results=results_table(groups),
        runs=runs_table(groups),
        charts={name: chart for name, chart in charts.items() if chart['data']},
        differences=[[name, *row] for name, row in find_differences(groups).items()],
    )


def _find_command(folders: Sequence[Path]) -> str | None:
    for path in (folder / 'comparison.json' for folder in folders):
        try:
            return f'python {json.loads(path.read_text())["command"]}'
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def _list_environments(runs: Sequence[Run]) -> list[tuple[list[str], dict[str, str]]]:
    """Returns the runs of each environment, and its versions."""
    found: dict[tuple, list[str]] = {}
    for run in runs:
        if run.environment:
            found.setdefault(tuple(run.environment.items()), []).append(run.name)
    return [(names, dict(versions)) for versions, names in found.items()]
