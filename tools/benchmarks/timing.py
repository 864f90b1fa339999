"""Shared parts of the benchmarks that time variants against each other.

Machines may be shared and noisy. Therefore all variants run in random order within a round; ratios are computed within
each round, and then their medians are taken. On one thread of the CPU (``OMP_NUM_THREADS=1``) processor time is
measured.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.utils import track_iter_progress

from smmix_mm.engine.hooks.keep_memory_hook import keep_memory

Times = Mapping[str, float]
# Of a process of `time_rates`: its variants by name.
PREPARED: dict[str, Callable[[], Any]] = {}
# Forward passes and the mixing are short, so one sample consists of several.
INNER_REPEATS = 5


def measure(
    run: Callable[[], None], repeats: int, device: torch.device, clock: Callable[[], float] | None = None
) -> float:
    """Measures the seconds of one run, averaged over repeats.

    Args:
        run (Callable): The function to time.
        repeats (int): Number of runs.
        device (torch.device): Synchronised before and after.
        clock (Callable, optional): A clock in seconds. Defaults to that of :func:`pick_clock`.
    """
    clock = clock or pick_clock(device)
    _synchronise(device)
    started = clock()
    for _ in range(repeats):
        run()
    _synchronise(device)
    return (clock() - started) / repeats


def pick_clock(device: torch.device) -> Callable[[], float]:
    """Picks processor time on one thread of the CPU, as other programs hardly affect it; otherwise wall-clock time."""
    on_one_thread = device.type == 'cpu' and torch.get_num_threads() == 1
    return time.process_time if on_one_thread else time.perf_counter


def _synchronise(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def time_interleaved(
    runs: Mapping[str, tuple[Callable[[], None], int]],
    ratios: Mapping[str, Callable[[Times], float]],
    rounds: int,
    device: torch.device,
    show_progress: bool = True,
) -> dict[str, dict[str, Any]]:
    """Times variants against each other.

    Args:
        runs (Mapping): By name, a function and its number of runs per sample. Each runs once before.
        ratios (Mapping): By name, a function of the seconds of one round.
        rounds (int): Number of samples of each variant.
        device (torch.device): Synchronised before and after each sample.
        show_progress (bool): Whether to print a bar. Defaults to True.

    Returns:
        dict[str, dict]: ``seconds``, medians by variant, ``ratios``, medians by name, and ``quartiles``, the first and
            third of each ratio.
    """
    for run, _ in runs.values():
        run()
    return _time_rounds(
        lambda variant: measure(*runs[variant], device), list(runs), ratios, rounds, show_progress=show_progress
    )


def _time_rounds(
    sample: Callable[[str], float],
    variants: Sequence[str],
    ratios: Mapping[str, Callable[[Times], float]],
    rounds: int,
    show_progress: bool = True,
) -> dict[str, dict[str, Any]]:
    results = []
    for _ in track_iter_progress(range(rounds)) if show_progress else range(rounds):
        times = dict.fromkeys(variants, 0.0)
        for variant in random.sample(variants, len(variants)):
            times[variant] = sample(variant)
        results.append(times)
    by_round = {name: [ratio(times) for times in results] for name, ratio in ratios.items()}
    return dict(
        seconds={variant: statistics.median(times[variant] for times in results) for variant in variants},
        ratios={name: statistics.median(values) for name, values in by_round.items()},
        quartiles={name: np.percentile(values, [25, 75]).tolist() for name, values in by_round.items()},
    )


def time_rates(
    make: Callable[[str], Callable[[], Any]], variants: Sequence[str], rounds: int, device: torch.device
) -> dict[str, dict[str, Any]]:
    """Times variants against the first one.

    Those with ``memory kept`` in their names run in a second process, which keeps freed memory if they run on the CPU,
    because what a process has kept it does not give back. The two processes take turns.

    Args:
        make (Callable): Makes the function of a variant from its name; called in the process of the variant.
        variants (Sequence[str]): Names; the first one has the rate 1 and keeps no memory.
        rounds (int): Number of samples of each variant.
        device (torch.device): Synchronised before and after each sample.

    Returns:
        dict[str, dict]: As from :func:`time_interleaved`, and ``first``, what the functions returned at first.
    """
    with ExitStack() as stack:
        processes = {}
        for keeps in (False, True):
            if names := [name for name in variants if ('memory kept' in name) == keeps]:
                process = stack.enter_context(ProcessPoolExecutor(1, mp_context=get_context('spawn')))
                process.submit(_prepare, make, names, keeps and device.type == 'cpu').result()
                processes |= dict.fromkeys(names, process)
        first = {name: processes[name].submit(_run, name).result() for name in variants}
        reference = variants[0]
        ratios = {f'rate, {name}': lambda t, name=name: t[reference] / t[name] for name in variants[1:]}
        result = _time_rounds(
            lambda name: processes[name].submit(_measure, name, device).result(), variants, ratios, rounds
        )
    return {**result, 'first': first}


def _prepare(make: Callable[[str], Callable[[], Any]], names: Sequence[str], keeps_memory: bool) -> None:
    if keeps_memory:
        keep_memory()
    PREPARED.update({name: make(name) for name in names})


def _run(name: str) -> Any:
    return PREPARED[name]()


def _measure(name: str, device: torch.device) -> float:
    return measure(PREPARED[name], 1, device)


def add_precision_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of a training step: device, precision, compilation, memory format."""
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument(
        '--amp',
        nargs='?',
        const='default',
        choices=['default', 'bfloat16', 'float16'],
        help='automatic mixed precision; default dtype: float16 on a GPU, bfloat16 elsewhere',
    )
    parser.add_argument(
        '--compile',
        nargs='?',
        const='inductor',
        metavar='BACKEND',
        help='compile the backbone; default backend: inductor',
    )
    parser.add_argument('--channels-last', action='store_true', help='use the memory format channels_last')


def amp_dtype(amp: str | None, device: torch.device) -> str | None:
    """Returns the dtype that ``--amp`` names; without a name, the default of the engine."""
    if amp == 'default':
        return 'float16' if device.type == 'cuda' else 'bfloat16'
    return amp


def print_times(result: Mapping[str, Times]) -> None:
    for variant, seconds in result['seconds'].items():
        print(f'  {variant:<52} {1000 * seconds:10.1f} ms')
    for ratio, value in result['ratios'].items():
        low, high = result['quartiles'][ratio]
        print(f'  {ratio:<52} {value:10.4f}   quartiles {low:.4f} to {high:.4f}')


def write_report(path: Path, args: argparse.Namespace, results: Mapping[str, Any]) -> None:
    """Writes results to a JSON file, with the hardware and software they were measured on."""
    settings = {name: value for name, value in vars(args).items() if name not in ('out', 'threads')}
    clock = pick_clock(torch.device(getattr(args, 'device', 'cpu'))).__name__
    report = dict(torch=torch.__version__, **settings, threads=torch.get_num_threads(), clock=clock, results=results)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2))
    print(f'written to {path}')
