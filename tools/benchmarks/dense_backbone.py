"""Times PVT-T on large pictures, forward and backward, against stock mmdet's PyramidVisionTransformer of that size.

Both are timed as they are and with freed memory kept, ours also with linear layers by oneDNN and with the MLPs
recomputed in the backward pass. Weights and pictures are random.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from mmdet.models.backbones import PyramidVisionTransformer
from peak_memory import peak_memory
from timing import print_times, time_rates, write_report

from smmix_mm.engine import RecomputeActivations
from smmix_mm.engine.hooks.one_dnn_linear_hook import convolve_linear
from smmix_mm.models import PVT

SIZES = ('512x512', '800x1344')
STOCK = 'mmdet.PyramidVisionTransformer'
# A backbone and its switches, separated by commas; the first one is the reference.
VARIANTS = (
    STOCK,
    f'{STOCK}, memory kept',
    'smmix_mm.PVT',
    'smmix_mm.PVT, memory kept',
    'smmix_mm.PVT, memory kept, MLPs recomputed',
    'smmix_mm.PVT, memory kept, oneDNN',
)


def make_step(size: str, batch_size: int, device: torch.device, variant: str) -> Callable[[], None]:
    """Returns a step of PVT-T without stochastic depth: forward, and backward from all four maps."""
    rows, cols = map(int, size.split('x'))
    torch.manual_seed(0)
    images = torch.randn(batch_size, 3, rows, cols, device=device)
    switches = variant.split(', ')
    if STOCK in switches:
        backbone = PyramidVisionTransformer(num_layers=[2, 2, 2, 2], drop_path_rate=0.0)
    else:
        backbone = PVT('tiny', out_type='featmap')
    backbone.to(device).train()
    if 'oneDNN' in switches:
        convolve_linear(backbone)
    if 'MLPs recomputed' in switches:
        mlps = [name for name, _ in backbone.named_modules() if name.endswith('.mlp')]
        RecomputeActivations(mlps).before_train(SimpleNamespace(model=backbone))

    def run() -> None:
        backbone.zero_grad()
        sum(feature_map.mean() for feature_map in backbone(images)).backward()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--sizes', nargs='+', default=list(SIZES), help='height x width')
    parser.add_argument('--batch-size', type=int, default=2, help="default: 2, the recipes' images per GPU")
    parser.add_argument('--rounds', type=int, default=9)
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/benchmarks/dense_backbone.json'))
    args = parser.parse_args()
    results = {size: time_size(size, args) for size in args.sizes}
    write_report(args.out, args, results)


def time_size(size: str, args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Times the variants on pictures of one size, and measures their memory."""
    device = torch.device(args.device)
    print(f'{size}, batch {args.batch_size}, {args.device}, {args.rounds} rounds')
    make = partial(make_step, size, args.batch_size, device)
    result = time_rates(make, VARIANTS, args.rounds, device)
    print_times(result)
    # On top of the model and the pictures.
    memory = {name: peak_memory(make(name), device) for name in VARIANTS}
    for name, peak in memory.items():
        print(f'  {f"{name}, peak memory":<52} {peak / 2**20:10.0f} MiB, {peak / memory[STOCK]:.3f} of stock')
    return {**result, 'peak memory': memory}


if __name__ == '__main__':
    main()
