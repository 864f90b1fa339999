"""Measures time and peak memory of training steps of the ImageNet configs at 224 with CutMix and with SMMix.

Both recipes use Mixup in half of their steps. Weights and pictures are random. Examples:

    python tools/benchmarks/step_time.py
    python tools/benchmarks/step_time.py --batch-size 256 --device cuda --amp --compile
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import init_default_scope
from peak_memory import peak_memory
from steps import MODELS_TIMED, Batch, autocast, build, build_optim_wrapper, evaluation, preprocess, random_batch
from timing import INNER_REPEATS, Times, add_precision_options, amp_dtype, print_times, time_interleaved, write_report
from torch import Tensor

from smmix_mm import functional
from smmix_mm.engine.hooks.compile_hook import compile_backbone
from smmix_mm.models import MixingClassifier

MIXUP = dict(type='mmpretrain.Mixup', alpha=0.8)
RECIPES = {
    'CutMix': dict(type='mmpretrain.CutMix', alpha=1.0),
    'SMMix': dict(type='smmix_mm.SMMix'),
    'SMMix, half scale': dict(type='smmix_mm.SMMix', motivation_scale=0.5),
}


def recipe(times: Times, method: str) -> float:
    """Returns the mean step of a recipe that uses a method in half of its steps and Mixup in the other half."""
    return (times[f'{method} step'] + times[f'Mixup step beside {method}']) / 2


def bound(times: Times, part: float = 1.0) -> float:
    """Returns the most a step may cost: CutMix's recipe and, in half of the steps, a part of 1.05 forward passes."""
    return recipe(times, 'CutMix') + 0.5 * 1.05 * part * times['evaluation forward']


RATIOS = {
    'SMMix recipe / CutMix recipe': lambda t: recipe(t, 'SMMix') / recipe(t, 'CutMix'),
    'half scale: SMMix recipe / CutMix recipe': lambda t: recipe(t, 'SMMix, half scale') / recipe(t, 'CutMix'),
    'bound / CutMix recipe': lambda t: bound(t) / recipe(t, 'CutMix'),
    'SMMix recipe / bound': lambda t: recipe(t, 'SMMix') / bound(t),
    'SMMix step / (CutMix step + 1.05 evaluation forward)': lambda t: (
        t['SMMix step'] / (t['CutMix step'] + 1.05 * t['evaluation forward'])
    ),
    'half scale: recipe / bound of a quarter': lambda t: recipe(t, 'SMMix, half scale') / bound(t, 0.25),
    'half scale: extra / 1.05 evaluation forward': lambda t: (
        (t['SMMix, half scale step'] - t['CutMix step']) / (1.05 * t['evaluation forward'])
    ),
    'half scale: forward / full forward': lambda t: t['evaluation forward, half scale'] / t['evaluation forward'],
    'reading the attention / evaluation forward': lambda t: (
        t['evaluation forward with attention'] / t['evaluation forward'] - 1
    ),
    'mixing alone / CutMix step': lambda t: t['mixing alone'] / t['CutMix step'],
}


class Steps:
    """The training steps of one recipe: a model, its optimiser, and the method of a step.

    Args:
        name (str): Name of the model.
        augment (dict): Config of the method beside Mixup.
        batch (Batch): The batch of every step.
        args (argparse.Namespace): Arguments of this program.
    """

    def __init__(self, name: str, augment: dict, batch: Batch, args: argparse.Namespace) -> None:
        self.model = build(name, [MIXUP, augment], torch.device(args.device), channels_last=args.channels_last)
        if args.compile:
            compile_backbone(self.model, backend=args.compile)
        self.batch = batch
        self.optim_wrapper = build_optim_wrapper(self.model, args.amp)

    def mixup(self) -> None:
        """Runs a step with Mixup."""
        self._step([1.0, 0.0, 0.0])

    def method(self) -> None:
        """Runs a step with the other method."""
        self._step([0.0, 1.0, 0.0])

    def _step(self, probs: list[float]) -> None:
        self.model.mixing.probs = probs
        self.model.train_step(self.batch, self.optim_wrapper)


def mixing(images: Tensor, grid: tuple[int, int]) -> None:
    """Runs only the mixing operation, with a region of half the grid's sides."""
    attention = torch.rand(len(images), *grid, device=images.device)
    functional.max_min_mix(images, attention, (grid[0] // 2, grid[1] // 2))


def time_model(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Times all variants of a model; adds ``peak memory`` in MiB by step to the result of :func:`time_interleaved`."""
    device = torch.device(args.device)
    batch = random_batch(args.batch_size, device)
    recipes = {method: Steps(name, augment, batch, args) for method, augment in RECIPES.items()}
    steps = {f'Mixup step beside {method}': steps.mixup for method, steps in recipes.items()}
    steps |= {f'{method} step': steps.method for method, steps in recipes.items()}
    model = recipes['SMMix'].model
    images = preprocess(model, batch)[0]
    passes = {
        'evaluation forward': evaluation(model, images, amp=args.amp),
        'evaluation forward, half scale': evaluation(model, images, amp=args.amp, scale=0.5),
        'evaluation forward with attention': evaluation(model, images, attention=True, amp=args.amp),
        'mixing alone': lambda: mixing(images, model.adapter.grid(images)),
    }
    if args.sync_debug:
        for method, of_method in recipes.items():
            check_no_synchronisation(of_method.model, batch, args)
            print(f'  {method} and Mixup: loss and backward do not wait for the device')
    runs = {key: (run, 1) for key, run in steps.items()} | {key: (run, INNER_REPEATS) for key, run in passes.items()}
    result = time_interleaved(runs, RATIOS, args.rounds, device)
    result['peak memory'] = {key: peak_memory(run, device) / 2**20 for key, run in steps.items()}
    result['peak memory ratios'] = memory_ratios(result['peak memory'])
    return result


def memory_ratios(peaks: Times) -> dict[str, float]:
    """Returns ratios of SMMix's peak memory to CutMix's: of a step, and of a recipe including its steps with Mixup."""
    recipes = {
        method: max(peaks[f'{method} step'], peaks[f'Mixup step beside {method}']) for method in ('SMMix', 'CutMix')
    }
    return {
        'SMMix step / CutMix step, memory': peaks['SMMix step'] / peaks['CutMix step'],
        'SMMix recipe / CutMix recipe, memory': recipes['SMMix'] / recipes['CutMix'],
    }


@contextmanager
def forbid_synchronisation() -> Iterator[None]:
    """Makes operations in the block raise an error on CUDA if the host has to wait for the device."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode('error')
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def check_no_synchronisation(model: MixingClassifier, batch: Batch, args: argparse.Namespace) -> None:
    """Checks loss and backward of both methods.

    Raises:
        RuntimeError: If one of them makes the host wait for the device.
    """
    for probs in ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0]):
        model.mixing.probs = probs
        for forbidding in (False, True):
            # The first run compiles, if requested, and selects algorithms.
            images, samples, _ = preprocess(model, batch)
            with forbid_synchronisation() if forbidding else torch.enable_grad():
                with autocast(images.device, args.amp):
                    losses = model.loss(images, samples)
                sum(losses.values()).backward()
            model.zero_grad()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--models', nargs='+', choices=MODELS_TIMED, default=['deit-small', 'pvt-small'])
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--rounds', type=int, default=9)
    add_precision_options(parser)
    parser.add_argument(
        '--sync-debug',
        action='store_true',
        help="fail where loss or backward wait for the device (torch's sync debug mode; CUDA only)",
    )
    parser.add_argument('--out', type=Path, default=Path('work_dirs/benchmarks/step_time.json'))
    args = parser.parse_args()
    args.amp = amp_dtype(args.amp, torch.device(args.device))
    if args.sync_debug and torch.device(args.device).type != 'cuda':
        parser.error(f'--sync-debug needs --device cuda, but got {args.device}')
    init_default_scope('mmpretrain')
    results = {}
    for name in args.models:
        print(f'{name}, batch {args.batch_size}, {args.device}, {args.rounds} rounds')
        results[name] = time_model(name, args)
        print_times(results[name])
        for step, mebibytes in results[name]['peak memory'].items():
            print(f'  {f"{step}, peak memory":<52} {mebibytes:10.1f} MiB')
        for ratio, value in results[name]['peak memory ratios'].items():
            print(f'  {ratio:<52} {value:10.4f}')
        write_report(args.out, args, results)


if __name__ == '__main__':
    main()
