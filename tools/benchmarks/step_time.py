"""Times training steps of the ImageNet configs at 224: without mixing, with CutMix, with SMMix, and what SMMix adds.

Weights and pictures are random.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.structures import DataSample
from timing import print_times, time_interleaved, write_report
from torch import Tensor

from smmix_mm import functional
from smmix_mm.models import MixingClassifier
from smmix_mm.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
MODELS_TIMED = ('deit-tiny', 'pvt-tiny')
# Forward passes and the mixing are short: several of them make one sample.
INNER_REPEATS = 5
RATIOS = {
    'SMMix step / plain step': lambda t: t['SMMix step'] / t['plain step'],
    'CutMix step / plain step': lambda t: t['CutMix step'] / t['plain step'],
    '(SMMix step - plain step) / evaluation forward': lambda t: (
        (t['SMMix step'] - t['plain step']) / t['evaluation forward']
    ),
    'SMMix step / (plain step + 1.05 evaluation forward)': lambda t: (
        t['SMMix step'] / (t['plain step'] + 1.05 * t['evaluation forward'])
    ),
    'reading the attention / evaluation forward': lambda t: (
        t['evaluation forward with attention'] / t['evaluation forward'] - 1
    ),
    'mixing alone / plain step': lambda t: t['mixing alone'] / t['plain step'],
}


def build(
    name: str, augment: dict | None, device: torch.device, teacher: MixingClassifier | None = None
) -> MixingClassifier:
    """The ImageNet model of a name with one method in every step."""
    cfg = Config.fromfile(ROOT / f'configs/smmix/{name}_smmix_8xb128-300e_in1k.py').model
    cfg.train_cfg = dict(augments=[augment] if augment else [])
    # A Config cannot hold a module.
    return MODELS.build(dict(cfg, teacher=teacher)).to(device).train()


def random_batch(batch_size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Pictures of noise ``(B, 3, 224, 224)`` and their one-hot labels ``(B, 1000)``, always the same."""
    torch.manual_seed(0)
    labels = torch.arange(batch_size, device=device) % 1000
    return torch.randn(batch_size, 3, 224, 224, device=device), torch.eye(1000, device=device)[labels]


def training_step(model: MixingClassifier, images: Tensor, samples: list[DataSample]) -> Callable[[], None]:
    """Forward, losses, backward and optimiser step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def step() -> None:
        optimizer.zero_grad()
        # CutMix writes in place.
        sum(model.loss(images.clone(), samples).values()).backward()
        optimizer.step()

    return step


def evaluation(model: MixingClassifier, images: Tensor, attention: bool) -> Callable[[], None]:
    """The motivation pass, with or without reading the attention."""
    return lambda: model.motivate(images, attention=attention)


def mix(model: MixingClassifier, images: Tensor, targets: Tensor) -> Callable[[], None]:
    """The only method of a model by itself; it asks nothing."""

    def run() -> None:
        method, streams = model.mixing.draw()
        method(images.clone(), targets, model.motivate, streams)

    return run


def mixing(images: Tensor, grid: tuple[int, int]) -> Callable[[], None]:
    """The mixing operation alone, with a region of half the grid's sides."""
    attention = torch.rand(len(images), *grid, device=images.device)
    region = (grid[0] // 2, grid[1] // 2)
    return lambda: functional.max_min_mix(images, attention, region)


def time_model(name: str, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Times all variants of a model; returns as :func:`time_interleaved`."""
    device = torch.device(args.device)
    images, targets = random_batch(args.batch_size, device)
    samples = [DataSample().set_gt_score(row) for row in targets]
    plain = build(name, None, device)
    smmix = build(name, dict(type='smmix_mm.SMMix'), device)
    cutmix = build(name, dict(type='mmpretrain.CutMix', alpha=1.0), device)
    runs = {
        'plain step': (training_step(plain, images, samples), 1),
        'CutMix step': (training_step(cutmix, images, samples), 1),
        'SMMix step': (training_step(smmix, images, samples), 1),
        'evaluation forward': (evaluation(plain, images, attention=False), INNER_REPEATS),
        'evaluation forward with attention': (evaluation(plain, images, attention=True), INNER_REPEATS),
        'mixing alone': (mixing(images, plain.adapter.grid(images)), INNER_REPEATS),
    }
    return time_interleaved(runs, RATIOS, args.rounds, device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--models', nargs='+', choices=MODELS_TIMED, default=list(MODELS_TIMED))
    parser.add_argument('--batch-size', type=int, default=16)
    parser.add_argument('--rounds', type=int, default=9)
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--out', type=Path, default=ROOT / 'work_dirs/benchmarks/step_time.json')
    args = parser.parse_args()
    init_default_scope('mmpretrain')
    results = {}
    for name in args.models:
        print(f'{name}, batch {args.batch_size}, {args.device}, {args.rounds} rounds')
        results[name] = time_model(name, args)
        print_times(results[name])
    write_report(args.out, args, results)


if __name__ == '__main__':
    main()
