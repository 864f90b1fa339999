"""Measures how much faster training steps of the SMMix recipe on the CPU are with each switch, alone and together.

A step is mmengine's ``train_step``: preprocessing, forward, losses, backward and AdamW. Mixup and SMMix take turns,
with the same draws for all variants, whose first losses are printed beside those without switches.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope
from steps import MODELS_TIMED, build, build_optim_wrapper, random_batch
from timing import print_times, time_rates, write_report

from smmix_mm.engine.hooks.compile_hook import compile_backbone
from smmix_mm.engine.hooks.one_dnn_linear_hook import convolve_linear

AUGMENTS = [dict(type='mmpretrain.Mixup', alpha=0.8), dict(type='smmix_mm.SMMix')]
# Their switches, separated by commas.
VARIANTS = (
    'as it is',
    'fused AdamW',
    'memory kept',
    'channels-last',
    'compiled',
    'oneDNN',
    'fused AdamW, memory kept, compiled',
    'fused AdamW, memory kept, oneDNN',
    'fused AdamW, memory kept, oneDNN, compiled',
)


def make_steps(model_name: str, batch_size: int, amp: str | None, variant: str) -> Callable[[], list[float]]:
    """Returns a function that runs a Mixup step and an SMMix step, and returns their losses."""
    init_default_scope('mmpretrain')
    MessageHub.get_instance('step_rate').update_info('seed', 0)
    device, switches = torch.device('cpu'), variant.split(', ')
    model = build(model_name, AUGMENTS, device, channels_last='channels-last' in switches)
    if 'oneDNN' in switches:
        convolve_linear(model)
    if 'compiled' in switches:
        compile_backbone(model)
    optim_wrapper = build_optim_wrapper(model, amp, fused='fused AdamW' in switches)
    batch = random_batch(batch_size, device)

    def run() -> list[float]:
        losses = []
        for iteration, probs in enumerate(([1.0, 0.0], [0.0, 1.0])):
            MessageHub.get_current_instance().update_info('iter', iteration)
            model.mixing.probs = probs
            torch.manual_seed(iteration)
            losses.append(model.train_step(batch, optim_wrapper)['loss'].item())
        return losses

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--models', nargs='+', choices=MODELS_TIMED, default=['deit-small', 'pvt-small'])
    parser.add_argument('--variants', nargs='+', choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument('--amp', nargs='+', choices=['float32', 'bfloat16'], default=['float32', 'bfloat16'])
    parser.add_argument('--batch-size', type=int, default=4)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/benchmarks/step_rate.json'))
    args = parser.parse_args()
    if 'memory kept' in args.variants[0]:
        parser.error(f'the first of --variants is the reference and cannot keep memory, but got {args.variants[0]!r}')
    results = {f'{name}, {dtype}': time_model(name, dtype, args) for name in args.models for dtype in args.amp}
    write_report(args.out, args, results)


def time_model(name: str, dtype: str, args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Times the variants of a model, the first one as the reference."""
    print(f'{name}, {dtype}, batch {args.batch_size}, {args.rounds} rounds')
    amp = None if dtype == 'float32' else dtype
    make = partial(make_steps, name, args.batch_size, amp)
    result = time_rates(make, args.variants, args.rounds, torch.device('cpu'))
    for key, losses in result['first'].items():
        print(f'  {key:<52} first losses {", ".join(f"{loss:.4f}" for loss in losses)}')
    print_times(result)
    return result


if __name__ == '__main__':
    main()
