"""Timing side by side: what the benchmarks share.

The machines that run this are shared and noisy: all variants run in one process, in random order within a round, and
ratios are taken within a round before their medians are.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.utils import ProgressBar

Times = Mapping[str, float]


def measure(run: Callable[[], None], repeats: int, device: torch.device) -> float:
    """Seconds of one run, averaged over repeats."""
    _synchronise(device)
    started = time.perf_counter()
    for _ in range(repeats):
        run()
    _synchronise(device)
    return (time.perf_counter() - started) / repeats


def _synchronise(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def time_interleaved(
    runs: Mapping[str, tuple[Callable[[], None], int]],
    ratios: Mapping[str, Callable[[Times], float]],
    rounds: int,
    device: torch.device,
) -> dict[str, dict[str, float]]:
    """Times variants against each other.

    Args:
        runs (Mapping): By name, what to run and how many times for one sample. Each runs once before.
        ratios (Mapping): By name, what to make of the seconds of one round.
        rounds (int): Samples of each variant.
        device (torch.device): Waited for around each sample.

    Returns:
        dict[str, dict[str, float]]: ``seconds``, medians by variant, and ``ratios``, medians by name.
    """
    for run, _ in runs.values():
        run()
    results = []
    progress = ProgressBar(rounds)
    for _ in range(rounds):
        times = dict.fromkeys(runs, 0.0)
        for variant in random.sample(list(runs), len(runs)):
            times[variant] = measure(*runs[variant], device)
        results.append(times)
        progress.update()
    print()
    return dict(
        seconds={variant: statistics.median(times[variant] for times in results) for variant in runs},
        ratios={name: statistics.median(map(ratio, results)) for name, ratio in ratios.items()},
    )


def print_times(result: Mapping[str, Times]) -> None:
    for variant, seconds in result['seconds'].items():
        print(f'  {variant:<52} {1000 * seconds:10.1f} ms')
    for ratio, value in result['ratios'].items():
        print(f'  {ratio:<52} {value:10.4f}')


def write_report(path: Path, args: argparse.Namespace, results: Mapping[str, Any]) -> None:
    """Writes results to a JSON file, with what they were measured on."""
    settings = {name: value for name, value in vars(args).items() if name != 'out'}
    report = dict(torch=torch.__version__, threads=torch.get_num_threads(), **settings, results=results)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2))
    print(f'written to {path}')
