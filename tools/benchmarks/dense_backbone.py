"""Times PVT-T on large pictures, forward and backward, against stock mmdet's PyramidVisionTransformer of that size.

Ours is timed as it is, and with the switches of the CPU: compiled, and with freed memory kept. Weights and pictures are
random.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from mmdet.models.backbones import PyramidVisionTransformer
from peak_memory import peak_memory
from timing import Times, print_times, time_interleaved, write_report
from torch import Tensor, nn

from smmix_mm.engine.hooks.compile_hook import compile_backbone
from smmix_mm.engine.hooks.keep_memory_hook import keep_memory
from smmix_mm.models import PVT

SIZES = ('512x512', '800x1344')
STOCK = 'mmdet.PyramidVisionTransformer'
OURS = 'smmix_mm.PVT'
FAST = 'smmix_mm.PVT, compiled, memory kept'
VARIANTS = (OURS, FAST, STOCK)


def build(name: str, device: torch.device) -> nn.Module:
    """Builds PVT-T for dense tasks, in training mode without stochastic depth."""
    if name == STOCK:
        return PyramidVisionTransformer(num_layers=[2, 2, 2, 2], drop_path_rate=0.0).to(device).train()
    backbone = PVT('tiny', out_type='featmap').to(device).train()
    if name == FAST:
        compile_backbone(nn.ModuleDict(dict(backbone=backbone)))
    return backbone


def make_step(name: str, images: Tensor) -> Callable[[], None]:
    """Returns a step: forward, and backward from all four maps."""
    backbone = build(name, images.device)

    def run() -> None:
        if images.device.type == 'cpu':
            keep_memory(name == FAST)
        backbone.zero_grad()
        sum(feature_map.mean() for feature_map in backbone(images)).backward()

    return run


def make_images(size: str, args: argparse.Namespace) -> Tensor:
    rows, cols = map(int, size.split('x'))
    torch.manual_seed(0)
    return torch.randn(args.batch_size, 3, rows, cols, device=args.device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--sizes', nargs='+', default=list(SIZES), help='height x width')
    parser.add_argument('--batch-size', type=int, default=2, help="default: 2, the recipes' images per GPU")
    parser.add_argument('--rounds', type=int, default=9)
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/benchmarks/dense_backbone.json'))
    args = parser.parse_args()
    device = torch.device(args.device)
    results = {}
    for size in args.sizes:
        print(f'{size}, batch {args.batch_size}, {args.device}, {args.rounds} rounds')
        images = make_images(size, args)
        steps = {name: make_step(name, images) for name in VARIANTS}
        ratios = {f'stock / {name}, time': partial(speed_up, name) for name in (OURS, FAST)}
        runs = {name: (step, 1) for name, step in steps.items()}
        results[size] = time_interleaved(runs, ratios, args.rounds, device)
        print_times(results[size])
        # The compiled one has been compiled by now. On top of the models, their gradients and the pictures.
        memory = {name: peak_memory(step, device) for name, step in steps.items()}
        results[size]['peak memory'] = memory
        for name, peak in memory.items():
            print(f'  {f"{name}, peak memory":<52} {peak / 2**20:10.0f} MiB, {peak / memory[STOCK]:.3f} of stock')
    write_report(args.out, args, results)


def speed_up(name: str, times: Times) -> float:
    return times[STOCK] / times[name]


if __name__ == '__main__':
    main()
