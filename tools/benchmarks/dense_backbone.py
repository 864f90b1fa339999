"""Times PVT-T on large pictures, forward and backward, against stock mmdet's PyramidVisionTransformer of that size.

Both are timed as they are and with freed memory kept, ours also with linear layers by oneDNN, and with the MLPs
recomputed in the backward pass besides. Weights and pictures are random.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch
from mmdet.models.backbones import PyramidVisionTransformer
from peak_memory import peak_memory
from timing import Times, print_times, time_interleaved, write_report
from torch import Tensor

from smmix_mm.engine import RecomputeActivations
from smmix_mm.engine.hooks.keep_memory_hook import keep_memory
from smmix_mm.engine.hooks.one_dnn_linear_hook import convolve_linear
from smmix_mm.models import PVT

SIZES = ('512x512', '800x1344')
STOCK = 'mmdet.PyramidVisionTransformer'
# Settings of `make_step`.
VARIANTS = {
    'smmix_mm.PVT': {},
    'smmix_mm.PVT, memory kept': dict(kept=True),
    'smmix_mm.PVT, memory kept, oneDNN': dict(kept=True, one_dnn=True),
    'smmix_mm.PVT, memory kept, oneDNN, MLPs recomputed': dict(kept=True, one_dnn=True, recomputed=True),
    STOCK: dict(stock=True),
    f'{STOCK}, memory kept': dict(stock=True, kept=True),
}


def make_step(
    images: Tensor, stock: bool = False, kept: bool = False, one_dnn: bool = False, recomputed: bool = False
) -> Callable[[], None]:
    """Returns a step of PVT-T without stochastic depth: forward, and backward from all four maps."""
    if stock:
        backbone = PyramidVisionTransformer(num_layers=[2, 2, 2, 2], drop_path_rate=0.0)
    else:
        backbone = PVT('tiny', out_type='featmap')
    backbone.to(images.device).train()
    if one_dnn:
        convolve_linear(backbone)
    if recomputed:
        mlps = [name for name, _ in backbone.named_modules() if name.endswith('.mlp')]
        RecomputeActivations(mlps).before_train(SimpleNamespace(model=backbone))

    def run() -> None:
        if images.device.type == 'cpu':
            keep_memory(kept)
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
        steps = {name: make_step(images, **settings) for name, settings in VARIANTS.items()}
        ratios = {f'stock / {name}, time': partial(speed_up, name) for name in VARIANTS if name != STOCK}
        runs = {name: (step, 1) for name, step in steps.items()}
        results[size] = time_interleaved(runs, ratios, args.rounds, device)
        print_times(results[size])
        # On top of the models and the pictures.
        memory = {name: peak_memory(step, device) for name, step in steps.items()}
        results[size]['peak memory'] = memory
        for name, peak in memory.items():
            print(f'  {f"{name}, peak memory":<52} {peak / 2**20:10.0f} MiB, {peak / memory[STOCK]:.3f} of stock')
    write_report(args.out, args, results)


def speed_up(name: str, times: Times) -> float:
    return times[STOCK] / times[name]


if __name__ == '__main__':
    main()
