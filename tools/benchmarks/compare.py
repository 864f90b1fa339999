"""Trains one model with several mixing methods, one after another, and writes one table and a report.

Methods are the files of configs/_base_/methods; the rest of the config does not change. Finished runs are skipped, and
an interrupted run resumes from its last checkpoint. Example:

    python tools/benchmarks/compare.py --methods cutmix transmix smmix --seeds 3 --epochs 8 \\
        --model configs/cutmix/pvt-mini_cutmix_1xb32-8e_digit-scenes.py
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope

from smmix_mm.configs import CONFIGS, FROM_WHEEL
from smmix_mm.datasets.own_data import read_config
from smmix_mm.engine import METHODS, add_method_settings, needs_teacher, read_method, with_method, with_teacher
from smmix_mm.files import write_whole
from smmix_mm.visualization.report import save_report

# Configs name their data relative to the root of the repository. Nothing is written into an installed package.
ROOT = Path.cwd() if FROM_WHEEL else CONFIGS.parent


@dataclass(frozen=True)
class Result:
    """The result of one training.

    Attributes:
        accuracy: Top-1 in per cent after the last epoch.
        best: The highest of all epochs.
        step_ms: Median of the logged times per step in milliseconds, including waiting for data.
        memory_mb: Peak memory in MB of the GPU or, without a GPU, of the process (of the last one after an
            interruption).
        seconds: Duration including start and evaluation; after an interruption, of the last process.
    """

    accuracy: float
    best: float
    step_ms: float
    memory_mb: float
    seconds: float


def main() -> None:
    args = parse_args()
    os.chdir(ROOT)
    check(args)
    results: dict[str, dict[int, Result]] = {}
    for method in args.methods:
        teacher = find_teacher(args) if method_needs_teacher(method, args) else None
        for seed in range(args.seeds):
            results.setdefault(method, {})[seed] = train(method, seed, teacher, args)
            write_report(args, results)
    print(f'\n{table(results)}\n\nwritten to {args.work_dir}/comparison.md and .json')
    report = args.work_dir / 'report.html'
    title = f'{", ".join(args.methods)} on {Path(args.model).stem}'
    save_report([args.work_dir / method for method in args.methods], report, title, f'python {shlex.join(sys.argv)}')
    print(f'report: {report}')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--methods', nargs='+', required=True, metavar='METHOD', help=f'one or more of {", ".join(METHODS)}'
    )
    parser.add_argument(
        '--model', required=True, metavar='CONFIG', help='a classification config; its method is replaced'
    )
    parser.add_argument('--seeds', type=int, default=1, help='number of runs of each method, with seeds 0, 1, ...')
    parser.add_argument('--epochs', type=int, help='epochs of each run; default: as in the config')
    parser.add_argument(
        '--teacher',
        default='cutmix',
        metavar='METHOD|CHECKPOINT',
        help='teacher of methods that need one: this model trained with METHOD and seed 0, or a checkpoint of this '
        'model (default: cutmix)',
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        help='folder of the runs, the table and the report; default: work_dirs/compare/<name of the config>',
    )
    add_method_settings(parser)
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, default={}, help='override settings of all runs: key=value ...'
    )
    args = parser.parse_args()
    for method in args.methods:
        if method not in METHODS:
            parser.error(f'--methods: there is no method {method!r}; known are {", ".join(METHODS)}')
    for name in ('seeds', 'epochs'):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            parser.error(f'--{name} has to be at least 1, but got {getattr(args, name)}')
    args.model = str(Path(args.model).resolve())
    if args.teacher not in METHODS:
        args.teacher = str(Path(args.teacher).resolve())
    args.work_dir = (args.work_dir or ROOT / 'work_dirs/compare' / Path(args.model).stem).resolve()
    return args


def check(args: argparse.Namespace) -> None:
    """Builds every method before the first training, so that errors do not appear after hours."""
    teacher_wanted = False
    for method in args.methods:
        try:
            teacher_wanted |= method_needs_teacher(method, args)
        except Exception as error:
            raise SystemExit(f'{method} cannot be built: {error}') from error
    if not teacher_wanted:
        return
    if args.teacher not in METHODS and not Path(args.teacher).is_file():
        raise SystemExit(f'--teacher is neither a method nor a checkpoint: {args.teacher}')
    if args.teacher in METHODS and method_needs_teacher(args.teacher, args):
        raise SystemExit(f'--teacher {args.teacher} needs a teacher itself; choose another method, or a checkpoint')


def build_config(method: str, seed: int, teacher: str | None, args: argparse.Namespace) -> Config:
    """Returns the config of ``--model`` with another method, seed and length."""
    # The classes of own data are needed by the method's criterion and the teacher.
    cfg = with_method(read_config(args.model, args.cfg_options), read_method(method, args.set))
    if teacher:
        cfg = with_teacher(cfg, teacher)
    if args.epochs:
        shorten(cfg, args.epochs)
    cfg.setdefault('randomness', {})['seed'] = seed
    cfg.default_hooks.setdefault('checkpoint', dict(type='CheckpointHook')).update(
        interval=1, max_keep_ckpts=1, save_best=None
    )
    cfg.merge_from_dict(args.cfg_options)
    return cfg


def shorten(cfg: Config, epochs: int) -> None:
    """Sets the number of epochs, and stretches or compresses the schedule accordingly."""
    before = cfg.train_cfg.max_epochs
    cfg.train_cfg.max_epochs = epochs
    kept = []
    for scheduler in cfg.get('param_scheduler', []):
        for name in ('begin', 'end', 'T_max'):
            if name in scheduler:
                scheduler[name] = round(scheduler[name] * epochs / before)
        # A warm-up of less than half an epoch is left out.
        if scheduler.get('end', epochs) > scheduler.get('begin', 0):
            kept.append(scheduler)
    cfg.param_scheduler = kept


def method_needs_teacher(method: str, args: argparse.Namespace) -> bool:
    cfg = build_config(method, 0, None, args)
    init_default_scope(cfg.default_scope)
    return needs_teacher(cfg.mixing.augments)


def find_teacher(args: argparse.Namespace) -> str:
    """Returns the checkpoint of the teacher, which is trained first if needed."""
    if args.teacher not in METHODS:
        return args.teacher
    train(args.teacher, 0, None, args)
    return (run_dir(args.teacher, 0, args) / 'last_checkpoint').read_text()


def run_dir(method: str, seed: int, args: argparse.Namespace) -> Path:
    return args.work_dir / method / f'seed-{seed}'


def train(method: str, seed: int, teacher: str | None, args: argparse.Namespace) -> Result:
    """Trains with tools/train.py, unless the run is finished.

    Raises:
        SystemExit: If the training fails, or its folder holds a training with other settings.
    """
    folder = run_dir(method, seed, args)
    # Beside the folder, since mmengine saves its completed config in it under the same name.
    done, config = folder / 'result.json', folder.with_name(f'{method}_seed-{seed}.py')
    text = build_config(method, seed, teacher, args).pretty_text
    if config.exists() and config.read_text() != text:
        raise SystemExit(
            f'{folder} holds a run with other settings, those in {config}; choose another --work-dir, or remove both'
        )
    if done.exists():
        return Result(**json.loads(done.read_text()))
    print(f'{method}, seed {seed}: training; the log is {folder / "log.txt"}', flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    config.write_text(text)
    tool = CONFIGS.parent / 'tools/train.py'
    command = [sys.executable, str(tool), str(config), '--work-dir', str(folder), '--resume']
    started = time.time()
    with (folder / 'log.txt').open('a') as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        # os.wait4 returns the peak memory of this child process only.
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        process.returncode = os.waitstatus_to_exitcode(status)
        tail = '\n'.join((folder / 'log.txt').read_text().splitlines()[-20:])
        raise SystemExit(f'{tail}\nthe training of {method} with seed {seed} failed; see {folder / "log.txt"}')
    result = summarise(folder, usage.ru_maxrss / 1024, time.time() - started)
    write_whole(done, lambda unfinished: unfinished.write_text(json.dumps(asdict(result))))
    print(f'{method}, seed {seed}: top-1 {result.accuracy:.2f} %, {result.step_ms:.0f} ms per step', flush=True)
    return result


def summarise(folder: Path, process_mb: float, seconds: float) -> Result:
    """Summarises the values that mmengine logged in one run, or in a run and its resumptions."""
    rows = [
        json.loads(line)
        for path in sorted(folder.glob('*/vis_data/scalars.json'))
        for line in path.read_text().splitlines()
    ]
    accuracies = [row['accuracy/top1'] for row in rows if 'accuracy/top1' in row]
    steps = [row for row in rows if 'loss' in row]
    gpu_mb = max((row.get('memory', 0) for row in steps), default=0)
    return Result(
        accuracy=accuracies[-1],
        best=max(accuracies),
        step_ms=1000 * statistics.median(row['time'] for row in steps),
        memory_mb=gpu_mb or process_mb,
        seconds=seconds,
    )


def table(results: Mapping[str, Mapping[int, Result]]) -> str:
    """Returns a Markdown table: mean and sample standard deviation of the accuracy, its difference to the first method
    with the same seed, medians of time and memory.
    """
    head = (
        'method',
        'seeds',
        'top-1 (%)',
        'to the first, by seed',
        'best epoch (%)',
        'time per step (ms)',
        'peak memory (MB)',
    )
    lines = [head, [':--', *['--:'] * (len(head) - 1)]]
    first = next(iter(results), None)
    for method, runs in results.items():
        differences = [f'{run.accuracy - results[first][seed].accuracy:+.2f}' for seed, run in runs.items()]
        lines.append(
            (
                method,
                str(len(runs)),
                spread([run.accuracy for run in runs.values()]),
                '' if method == first else ', '.join(differences),
                spread([run.best for run in runs.values()]),
                f'{statistics.median(run.step_ms for run in runs.values()):.0f}',
                f'{statistics.median(run.memory_mb for run in runs.values()):.0f}',
            )
        )
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def spread(values: Sequence[float]) -> str:
    mean = f'{statistics.fmean(values):.2f}'
    return mean if len(values) == 1 else f'{mean} ± {statistics.stdev(values):.2f}'


def write_report(args: argparse.Namespace, results: Mapping[str, Mapping[int, Result]]) -> None:
    """Writes the results so far, with the hardware and software they were measured on."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU'
    settings: dict[str, Any] = {
        name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()
    }
    report = dict(
        command=shlex.join(sys.argv),
        torch=torch.__version__,
        device=device,
        cores=len(os.sched_getaffinity(0)),
        settings=settings,
        results={method: {str(seed): asdict(run) for seed, run in runs.items()} for method, runs in results.items()},
    )
    args.work_dir.mkdir(parents=True, exist_ok=True)
    (args.work_dir / 'comparison.json').write_text(json.dumps(report, indent=2))
    (args.work_dir / 'comparison.md').write_text(
        f'{table(results)}\n\n`python {shlex.join(sys.argv)}`, torch {torch.__version__}, {device}\n'
    )


if __name__ == '__main__':
    main()
