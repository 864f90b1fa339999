"""Shows the saving of one draw for all ranks: the curve for 1 to 1024 ranks, and measurements with CPU processes.

A step of SMMix has an extra forward; one of CutMix or Mixup does not. Ranks wait for each other in every step. If each
rank drew its own method, one that drew SMMix would keep all others waiting. Example:

    python tools/benchmarks/one_draw.py --processes 2 4 --image docs/images/one_draw.png

Three things are measured for each number of processes, under both policies: how often any rank drew SMMix, counted over
many draws of ``RandomMixing``; the time of real DDP steps of DeiT-T, which share the cores of this machine; and the
time of steps in which forward, backward and extra forward are sleeps, to simulate devices that share nothing. Times are
relative to interleaved steps without SMMix.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.distributed as torch_dist
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import init_default_scope
from steps import build, build_optim_wrapper, evaluation, preprocess, random_batch
from timing import measure, write_report
from torch import Tensor

from smmix_mm.engine import distributed_run
from smmix_mm.mixing import RandomMixing

POLICIES = {'one draw': True, 'own draws': False}
WITHOUT = 'without SMMix'
AUGMENTS = [dict(type='smmix_mm.SMMix'), dict(type='mmpretrain.Mixup', alpha=0.8)]
RANKS = [2**power for power in range(11)]
# A forward is about a third of a step, since backward costs as much as two forwards.
EXTRA_FORWARD = 1 / 3
DEVICE = torch.device('cpu')


def share_of_steps(ranks: int, prob: float, same_on_all_ranks: bool) -> float:
    """Returns the share of steps that wait for an extra forward: ``p``, or ``1 - (1 - p) ** n``."""
    return prob if same_on_all_ranks else 1 - (1 - prob) ** ranks


def step_cost(ranks: int, prob: float, extra: float, same_on_all_ranks: bool) -> float:
    """Returns the mean time of a step relative to one without the extra forward, which takes ``extra`` of that."""
    return 1 + share_of_steps(ranks, prob, same_on_all_ranks) * extra


def count_draws(mixing: RandomMixing, draws: int) -> Tensor:
    """Returns ``(draws,)``, 1 where any rank drew SMMix."""
    paid = torch.tensor([mixing.draw()[0] is mixing.methods[0] for _ in range(draws)], dtype=torch.int64)
    torch_dist.all_reduce(paid, op=torch_dist.ReduceOp.MAX)
    return paid


def under_policies(mixing: RandomMixing, run: Callable[[], None]) -> dict[str, Callable[[], None]]:
    """Returns a step under each policy, and one that never draws SMMix."""
    even = mixing.probs

    def step(probs: list[float], same_on_all_ranks: bool) -> None:
        mixing.probs, mixing.same_on_all_ranks = probs, same_on_all_ranks
        run()

    steps = {name: partial(step, even, same) for name, same in POLICIES.items()}
    return {WITHOUT: partial(step, [0.0, 1.0, 0.0], True), **steps}


def time_steps(steps: dict[str, Callable[[], None]], count: int) -> dict[str, float]:
    """Returns the mean seconds of each step, measured interleaved."""
    seconds = dict.fromkeys(steps, 0.0)
    for run in steps.values():
        run()
    for _ in range(count):
        for name, run in steps.items():
            torch_dist.barrier()
            # Wall-clock time, since sleeping and waiting take no processor time.
            seconds[name] += measure(run, 1, DEVICE, time.perf_counter) / count
    return seconds


def real_steps(batch_size: int) -> dict[str, Callable[[], None]]:
    """Returns DDP steps as in training."""
    module = build('deit-tiny', AUGMENTS, DEVICE)
    model = MMDistributedDataParallel(module, broadcast_buffers=False)
    batch, optim_wrapper = random_batch(batch_size, DEVICE), build_optim_wrapper(model, None)
    return under_policies(module.mixing, lambda: model.train_step(batch, optim_wrapper))


def sleeping_steps(step_seconds: float, extra_seconds: float) -> dict[str, Callable[[], None]]:
    """Returns steps of devices that share nothing: computation is a sleep, drawing and waiting for others are real."""
    mixing, gradient = RandomMixing(AUGMENTS), torch.zeros(1)

    def step() -> None:
        method, _ = mixing.draw()
        time.sleep(step_seconds + (extra_seconds if method is mixing.methods[0] else 0))
        torch_dist.all_reduce(gradient)

    return under_policies(mixing, step)


def measure_in_processes(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Runs all measurements of one number of processes."""
    torch.manual_seed(0)
    shares = {
        name: count_draws(RandomMixing(AUGMENTS, same_on_all_ranks=same), args.draws).float().mean().item()
        for name, same in POLICIES.items()
    }
    return dict(
        shares=shares,
        sleeping=time_steps(sleeping_steps(args.sleep, args.sleep * args.extra), args.sleeping_steps),
        real=time_steps(real_steps(args.batch_size), args.steps),
    )


def measure_extra_forward(batch_size: int, repeats: int) -> float:
    """Measures an evaluation-mode forward with attention relative to a CutMix step, in one process."""
    model = build('deit-tiny', [dict(type='mmpretrain.CutMix', alpha=1.0)], DEVICE)
    batch, optim_wrapper = random_batch(batch_size, DEVICE), build_optim_wrapper(model, None)
    images = preprocess(model, batch)[0]
    forward = evaluation(model, images, attention=True)
    model.train_step(batch, optim_wrapper)
    ratios = [
        measure(forward, 1, DEVICE) / measure(lambda: model.train_step(batch, optim_wrapper), 1, DEVICE)
        for _ in range(repeats)
    ]
    return sorted(ratios)[len(ratios) // 2]


def launch(args: argparse.Namespace, processes: int, extra: float) -> dict:
    """Runs the measurements in the given number of processes."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, 'result.json')
        options = dict(
            steps=args.steps, draws=args.draws, batch_size=args.batch_size, sleep=args.sleep, extra=extra, out=out
        )
        options['sleeping_steps'] = args.sleeping_steps
        subprocess.run(
            [
                *(sys.executable, '-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={processes}', '--'),
                *(__file__, '--worker'),
                *(str(part) for key, value in options.items() for part in (f'--{key.replace("_", "-")}', value)),
            ],
            env={**os.environ, 'OMP_NUM_THREADS': '1'},
            check=True,
        )
        return json.loads(out.read_text())


def over_without(seconds: dict[str, float], policy: str) -> float:
    return seconds[policy] / seconds[WITHOUT]


def draw_figure(path: Path, results: dict[str, dict], prob: float, extra: float) -> None:
    """Draws the curve and the measurements of simulated devices."""
    # The measuring processes do not need it.
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    for (name, same), style, marker in zip(POLICIES.items(), ('C0-', 'C3-'), ('C0o', 'C3o'), strict=True):
        label = 'one draw for all ranks' if same else 'each rank draws by itself'
        axes.plot(RANKS, [step_cost(ranks, prob, extra, same) for ranks in RANKS], style, label=label)
        processes = [int(ranks) for ranks in results]
        if processes:
            points = [over_without(result['sleeping'], name) for result in results.values()]
            axes.plot(processes, points, marker, label=f'{name}, measured with sleeps for devices')
    axes.set_xscale('log', base=2)
    axes.set_xticks(RANKS, [str(ranks) for ranks in RANKS])
    axes.set_ylim(1, 1 + extra * 1.15)
    axes.set_xlabel('ranks')
    axes.set_ylabel('mean step / CutMix step')
    axes.set_title(f'SMMix with probability {prob:g}; the extra forward is {extra:.2f} of a CutMix step')
    axes.grid(alpha=0.3)
    axes.legend(loc='lower right')
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    print(f'written to {path}')


def print_results(results: dict[str, dict], prob: float, extra: float) -> None:
    for ranks in RANKS:
        costs = [step_cost(ranks, prob, extra, same) for same in POLICIES.values()]
        share = share_of_steps(ranks, prob, same_on_all_ranks=False)
        print(f'{ranks:5d} ranks: one draw {costs[0]:.3f}, own draws {costs[1]:.3f} (extra forward in {share:.4f})')
    for processes, result in results.items():
        for name in POLICIES:
            print(
                f'{processes} processes, {name}: extra forward in {result["shares"][name]:.4f} of the steps; over '
                f'steps {WITHOUT}, with sleeps {over_without(result["sleeping"], name):.3f}, real '
                f'{over_without(result["real"], name):.3f} ({1000 * result["real"][name]:.0f} ms)'
            )


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--processes', type=int, nargs='*', default=[2, 4], help='numbers of processes to measure with')
    parser.add_argument('--steps', type=int, default=30, help='number of real steps of each policy')
    parser.add_argument('--sleeping-steps', type=int, default=200, help='number of simulated steps of each policy')
    parser.add_argument('--draws', type=int, default=10000, help='number of draws to count')
    parser.add_argument('--batch-size', type=int, default=2, help='images per process in a real step')
    parser.add_argument(
        '--sleep', type=float, default=0.03, help='seconds of sleep to simulate a step without extra forward'
    )
    parser.add_argument(
        '--extra',
        type=float,
        help='time of the extra forward relative to a CutMix step; default: measured, or 1/3 without processes',
    )
    parser.add_argument('--image', type=Path, help='write the figure to this file')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/benchmarks/one_draw.json'))
    parser.add_argument('--worker', action='store_true', help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    init_default_scope('mmpretrain')
    if args.worker:
        with distributed_run(Config(dict(launcher='pytorch'))):
            result = measure_in_processes(args)
            if torch_dist.get_rank() == 0:
                args.out.write_text(json.dumps(result))
        return
    extra = args.extra
    if extra is None:
        extra = measure_extra_forward(args.batch_size, args.steps) if args.processes else EXTRA_FORWARD
    results = {str(processes): launch(args, processes, extra) for processes in args.processes}
    prob = 1 / len(AUGMENTS)
    print_results(results, prob, extra)
    if args.image:
        draw_figure(args.image, results, prob, extra)
        args.image = str(args.image)
    write_report(args.out, args, dict(extra=extra, measured=results))


if __name__ == '__main__':
    main()
