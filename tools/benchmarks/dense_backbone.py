"""Times PVT-T on large pictures, forward and backward, against stock mmdet's PyramidVisionTransformer of that size.

Both are timed as they are and with freed memory kept, ours also with linear layers by oneDNN, and with the MLPs
recomputed in the backward pass besides. Weights and pictures are random.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from mmdet.models.backbones import PyramidVisionTransformer
from peak_memory import peak_memory
from timing import in_own_process, print_times, time_rates, write_report
from torch import Tensor

from smmix_mm.engine import RecomputeActivations
from smmix_mm.engine.hooks.one_dnn_linear_hook import convolve_linear
from smmix_mm.models import PVT

SIZES = ('512x512', '800x1344')
STOCK = 'mmdet.PyramidVisionTransformer'
# Settings of `make_step`.
VARIANTS = {
    'smmix_mm.PVT': {},
    'smmix_mm.PVT, memory kept': {},
    'smmix_mm.PVT, memory kept, oneDNN': dict(one_dnn=True),
    'smmix_mm.PVT, memory kept, oneDNN, MLPs recomputed': dict(one_dnn=True, recomputed=True),
    STOCK: dict(stock=True),
    f'{STOCK}, memory kept': dict(stock=True),
}


def make_step(
    images: Tensor, stock: bool = False, one_dnn: bool = False, recomputed: bool = False
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
    results = {size: in_own_process(time_size, size, args) for size in args.sizes}
    write_report(args.out, args, results)


def time_size(size: str, args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Times the variants on pictures of one size, in this process, and measures their memory."""
    device = torch.device(args.device)
    print(f'{size}, batch {args.batch_size}, {args.device}, {args.rounds} rounds')
    images = make_images(size, args)
    steps = {name: make_step(images, **settings) for name, settings in VARIANTS.items()}
    result = time_rates(steps, STOCK, args.rounds, device)
    print_times(result)
    # On top of the models and the pictures.
    memory = {name: peak_memory(step, device) for name, step in steps.items()}
    for name, peak in memory.items():
        print(f'  {f"{name}, peak memory":<52} {peak / 2**20:10.0f} MiB, {peak / memory[STOCK]:.3f} of stock')
    return {**result, 'peak memory': memory}


if __name__ == '__main__':
    main()
