"""Times training steps of the ImageNet configs at 224: without mixing, with CutMix, with SMMix, and what SMMix adds.

All variants run in one process, interleaved in random order; ratios are paired within a round and their medians are
printed, because the machines that run this are shared and noisy. Weights and pictures are random.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.utils import ProgressBar
from mmpretrain.structures import DataSample
from torch import Tensor

from smmix_mm import functional
from smmix_mm.models import MixingClassifier
from smmix_mm.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
MODELS_TIMED = ('deit-tiny', 'pvt-tiny')
# Forward passes and the mixing are short: several of them make one sample.
INNER_REPEATS = 5


def build(name: str, augment: dict | None, device: torch.device) -> MixingClassifier:
    """The ImageNet model of a name with one method in every step."""
    cfg = Config.fromfile(ROOT / f'configs/smmix/{name}_smmix_8xb128-300e_in1k.py').model
    cfg.train_cfg = dict(augments=[augment] if augment else [])
    return MODELS.build(cfg).to(device).train()


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


def mixing(images: Tensor, grid: tuple[int, int]) -> Callable[[], None]:
    """The mixing operation alone, with a region of half the grid's sides."""
    attention = torch.rand(len(images), *grid, device=images.device)
    region = (grid[0] // 2, grid[1] // 2)
    return lambda: functional.max_min_mix(images, attention, region)


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


def time_model(name: str, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Times all variants of a model.

    Returns:
        dict[str, dict[str, float]]: ``seconds``, medians by variant, and ``ratios``, medians of ratios within a round.
    """
    device = torch.device(args.device)
    torch.manual_seed(0)
    images = torch.randn(args.batch_size, 3, 224, 224, device=device)
    labels = torch.arange(args.batch_size, device=device) % 1000
    samples = [DataSample().set_gt_score(row) for row in torch.eye(1000, device=device)[labels]]
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
    for run, _ in runs.values():
        run()
    rounds = []
    progress = ProgressBar(args.rounds)
    for _ in range(args.rounds):
        times = dict.fromkeys(runs, 0.0)
        for variant in random.sample(list(runs), len(runs)):
            times[variant] = measure(*runs[variant], device)
        rounds.append(times)
        progress.update()
    print()
    return summarise(rounds)


def summarise(rounds: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Medians of times, and of ratios that are taken within each round."""
    ratios = {
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
    return dict(
        seconds={variant: statistics.median(times[variant] for times in rounds) for variant in rounds[0]},
        ratios={name: statistics.median(map(ratio, rounds)) for name, ratio in ratios.items()},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--models', nargs='+', choices=MODELS_TIMED, default=list(MODELS_TIMED))
    parser.add_argument('--batch-size', type=int, default=16)
    parser.add_argument('--rounds', type=int, default=9)
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--out', type=Path, default=ROOT / 'work_dirs/benchmarks/step_time.json')
    args = parser.parse_args()
    init_default_scope('mmpretrain')
    report = dict(
        torch=torch.__version__,
        device=args.device,
        threads=torch.get_num_threads(),
        batch_size=args.batch_size,
        rounds=args.rounds,
        models={},
    )
    for name in args.models:
        print(f'{name}, batch {args.batch_size}, {args.device}, {args.rounds} rounds')
        report['models'][name] = time_model(name, args)
        for variant, seconds in report['models'][name]['seconds'].items():
            print(f'  {variant:<52} {1000 * seconds:10.1f} ms')
        for ratio, value in report['models'][name]['ratios'].items():
            print(f'  {ratio:<52} {value:10.4f}')
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=2))
    print(f'written to {args.out}')


if __name__ == '__main__':
    main()
