"""Times PVT-T on large pictures, forward and backward, against stock mmdet's PyramidVisionTransformer of that size.

Time is measured interleaved in one process, peak memory in one process per model. Weights and pictures are random.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from mmdet.models.backbones import PyramidVisionTransformer
from timing import print_times, time_interleaved, write_report
from torch import Tensor, nn

from smmix_mm.models import PVT

ROOT = Path(__file__).resolve().parents[2]
SIZES = ('512x512', '800x1344')
OURS, STOCK = 'smmix_mm.PVT', 'mmdet.PyramidVisionTransformer'
# Allocators keep freed memory: further steps show whether the first one already took all that is needed.
MEMORY_STEPS = 2


def build(name: str, device: torch.device) -> nn.Module:
    """Builds PVT-T for dense tasks, in training mode without stochastic depth."""
    if name == OURS:
        return PVT('tiny', out_type='featmap').to(device).train()
    return PyramidVisionTransformer(num_layers=[2, 2, 2, 2], drop_path_rate=0.0).to(device).train()


def step(backbone: nn.Module, images: Tensor) -> Callable[[], None]:
    """Returns a step: forward, and backward from all four maps."""

    def run() -> None:
        backbone.zero_grad()
        sum(feature_map.mean() for feature_map in backbone(images)).backward()

    return run


def make_images(size: str, args: argparse.Namespace) -> Tensor:
    rows, cols = map(int, size.split('x'))
    torch.manual_seed(0)
    return torch.randn(args.batch_size, 3, rows, cols, device=args.device)


def time_size(size: str, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Times both models; returns the same as :func:`time_interleaved`."""
    device = torch.device(args.device)
    images = make_images(size, args)
    runs = {name: (step(build(name, device), images), 1) for name in (OURS, STOCK)}
    return time_interleaved(runs, {'stock / ours, time': lambda t: t[STOCK] / t[OURS]}, args.rounds, device)


def peak_memory(name: str, size: str, args: argparse.Namespace) -> float:
    """Measures the MiB that training steps add to the built model and its pictures in this process."""
    device = torch.device(args.device)
    run = step(build(name, device), make_images(size, args))
    if device.type == 'cuda':
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
    else:
        before = resident_memory('VmRSS')
        # Resets the peak. That of getrusage cannot be reset, and starts at the parent's.
        Path('/proc/self/clear_refs').write_text('5')
    for _ in range(MEMORY_STEPS):
        run()
    peak = torch.cuda.max_memory_allocated(device) if device.type == 'cuda' else resident_memory('VmHWM')
    return (peak - before) / 2**20


def resident_memory(field: str) -> int:
    """Returns the bytes of this process in memory, current (``VmRSS``) or peak (``VmHWM``); Linux only."""
    lines = Path('/proc/self/status').read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f'{field}:')))


def peak_memory_in_own_process(name: str, size: str, args: argparse.Namespace) -> float:
    options = ['--memory-of', name, '--sizes', size, '--batch-size', str(args.batch_size), '--device', args.device]
    done = subprocess.run([sys.executable, __file__, *options], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--sizes', nargs='+', default=list(SIZES), help='height x width')
    parser.add_argument('--batch-size', type=int, default=2, help="default: 2, the recipes' images per GPU")
    parser.add_argument('--rounds', type=int, default=9)
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--out', type=Path, default=ROOT / 'work_dirs/benchmarks/dense_backbone.json')
    parser.add_argument('--memory-of', choices=[OURS, STOCK], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_of:
        print(json.dumps(peak_memory(args.memory_of, args.sizes[0], args)))
        return
    results = {}
    for size in args.sizes:
        print(f'{size}, batch {args.batch_size}, {args.device}, {args.rounds} rounds')
        results[size] = time_size(size, args)
        print_times(results[size])
        memory = {name: peak_memory_in_own_process(name, size, args) for name in (OURS, STOCK)}
        results[size]['peak memory'] = memory
        for name, mebibytes in memory.items():
            print(f'  {f"{name}, peak memory":<52} {mebibytes:10.0f} MiB')
        print(f'  {"ours / stock, peak memory":<52} {memory[OURS] / memory[STOCK]:10.4f}')
    write_report(args.out, args, results)


if __name__ == '__main__':
    main()
