"""Measures time and memory of training steps of all methods against CutMix's.

The model is an ImageNet model at 224 x 224, with random weights and pictures.
Methods that need a teacher have one of the same size as the model.
"""

import argparse
import copy
from pathlib import Path

import torch
from mmengine.registry import init_default_scope
from peak_memory import peak_memory
from steps import MODELS_TIMED, build, evaluation, mix, preprocess, random_batch, training_step
from timing import INNER_REPEATS, print_times, time_interleaved, write_report

from smmix_mm.models import MixingClassifier

METHODS = {
    'CutMix': dict(type='mmpretrain.CutMix', alpha=1.0),
    'ResizeMix': dict(type='smmix_mm.ResizeMix'),
    'TransMix': dict(type='smmix_mm.TransMix'),
    'TokenMix': dict(type='smmix_mm.TokenMix'),
    'AttentiveMix': dict(type='smmix_mm.AttentiveMix'),
    'SaliencyMix': dict(type='smmix_mm.SaliencyMix'),
    'FMix': dict(type='smmix_mm.FMix'),
    'PuzzleMix': dict(type='smmix_mm.PuzzleMix'),
    'AutoMix': dict(type='smmix_mm.AutoMix'),
    'SMMix': dict(type='smmix_mm.SMMix'),
    'SMMix, scale 0.5': dict(type='smmix_mm.SMMix', motivation_scale=0.5),
    'SMMix, teacher': dict(type='smmix_mm.SMMix', motivated_by='teacher'),
}
WITH_TEACHER = ('TokenMix', 'AttentiveMix', 'SMMix, teacher')
# Methods whose own computation is also timed without the model.
ALONE = ('CutMix', 'SaliencyMix', 'FMix')
RATIOS = {
    **{
        f'{name} step / CutMix step': lambda t, name=name: t[name] / t['CutMix'] for name in METHODS if name != 'CutMix'
    },
    **{
        f'{name} step / (CutMix step + teacher)': lambda t, name=name: t[name] / (t['CutMix'] + t['teacher forward'])
        for name in WITH_TEACHER
    },
    **{f'{name} alone / CutMix step': lambda t, name=name: t[f'{name} alone'] / t['CutMix'] for name in ALONE},
    '(SMMix at scale 0.5 - CutMix) / (SMMix - CutMix)': lambda t: (
        (t['SMMix, scale 0.5'] - t['CutMix']) / (t['SMMix'] - t['CutMix'])
    ),
}


def time_methods(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Times all methods; returns the same as :func:`time_interleaved`, and ``peak memory`` of each step in MiB."""
    device = torch.device(args.device)
    batch = random_batch(args.batch_size, device)
    teacher = build(args.model, [], device)
    images, _, targets = preprocess(teacher, batch)
    models: dict[str, MixingClassifier] = {
        name: build(args.model, [augment], device, copy.deepcopy(teacher) if name in WITH_TEACHER else None)
        for name, augment in METHODS.items()
    }
    runs = {name: (training_step(model, batch), 1) for name, model in models.items()}
    runs |= {f'{name} alone': (mix(models[name], images, targets), INNER_REPEATS) for name in ALONE}
    runs['teacher forward'] = (evaluation(teacher, images), INNER_REPEATS)
    result = time_interleaved(runs, RATIOS, args.rounds, device)
    result['peak memory'] = {name: peak_memory(runs[name][0], device) / 2**20 for name in METHODS}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--model', choices=MODELS_TIMED, default=MODELS_TIMED[0])
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--rounds', type=int, default=9)
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/benchmarks/method_cost.json'))
    args = parser.parse_args()
    init_default_scope('mmpretrain')
    print(f'{args.model}, batch {args.batch_size}, {args.device}, {args.rounds} rounds')
    result = time_methods(args)
    print_times(result)
    for name, peak in result['peak memory'].items():
        of_cutmix = peak / result['peak memory']['CutMix']
        print(f'  {f"{name} step, memory":<52} {peak:10.1f} MiB, {of_cutmix:.3f} x CutMix')
    write_report(args.out, args, result)


if __name__ == '__main__':
    main()
