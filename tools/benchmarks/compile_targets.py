"""Compares compiling the backbone, the loss, or, as mmengine's switch does, the training step: graphs, breaks and time.

Trains a small ViT on random pictures with Mixup and SMMix, whose region sizes change from step to step.
"""

import argparse
import copy
import time
from collections.abc import Callable
from pathlib import Path

import torch
from mmcv.cnn.bricks import DropPath
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from mmpretrain.structures import DataSample
from timing import print_times, time_interleaved, write_report
from torch._dynamo.utils import counters

from smmix_mm.engine.hooks.compile_hook import compile_backbone
from smmix_mm.registry import MODELS

TARGETS = ('nothing', 'backbone', 'loss', 'train_step')
CLASSES = 10
MODEL = dict(
    type='smmix_mm.MixingClassifier',
    backbone=dict(
        type='mmpretrain.VisionTransformer',
        arch=dict(embed_dims=64, num_layers=6, num_heads=4, feedforward_channels=256),
        img_size=64,
        patch_size=8,
        drop_path_rate=0.1,
    ),
    head=dict(
        type='mmpretrain.VisionTransformerClsHead',
        num_classes=CLASSES,
        in_channels=64,
        loss=dict(type='mmpretrain.LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
    train_cfg=dict(augments=[dict(type='mmpretrain.Mixup', alpha=0.8), dict(type='smmix_mm.SMMix')]),
)


def make_step(target: str, backend: str, batch_size: int) -> Callable[[], None]:
    """Returns the training step of a new, partly compiled model; each call is the next step of a run."""
    torch.manual_seed(0)
    model = MODELS.build(copy.deepcopy(MODEL)).train()
    for part in model.modules():
        if isinstance(part, DropPath):
            part.drop_prob = float(part.drop_prob)  # for all targets: a NumPy scalar would break most graphs
    if target == 'backbone':
        compile_backbone(model, fullgraph=True, dynamic=False, backend=backend)
    elif target != 'nothing':
        setattr(model, target, torch.compile(getattr(model, target), backend=backend))
    wrapper = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=1e-4))
    images = list(torch.randint(0, 256, (batch_size, 3, 64, 64), dtype=torch.uint8))
    done = 0

    def step() -> None:
        nonlocal done
        hub = MessageHub.get_current_instance()
        hub.update_info('seed', 0)
        hub.update_info('iter', done)
        samples = [DataSample().set_gt_label(index % CLASSES) for index in range(batch_size)]
        model.train_step(dict(inputs=images, data_samples=samples), wrapper)
        done += 1

    return step


def compile_and_count(step: Callable[[], None], steps: int) -> dict[str, float]:
    """Runs the first steps, which include the compilations."""
    counters.clear()
    graphs, started = [], time.perf_counter()
    for _ in range(steps):
        step()
        graphs.append(counters['stats'].get('unique_graphs', 0))
    return {
        'graphs': graphs[-1],
        'steps with new graphs': sum(later > before for before, later in zip([0, *graphs], graphs, strict=False)),
        'graph breaks': sum(counters['graph_break'].values()),
        'seconds of the first steps': time.perf_counter() - started,
    }


def cause(error: Exception) -> str:
    """Returns the cause of an exception in one line; torch names it in a later line, followed by advice."""
    lines = [line.strip() for line in str(error).split('Set TORCHDYNAMO_VERBOSE')[0].splitlines()]
    return f'{type(error).__name__}: ' + ' '.join(line for line in lines if line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--targets',
        nargs='+',
        choices=TARGETS,
        default=('nothing', 'backbone'),
        help='parts to compile: nothing and at most one other, because torch reuses compilations within a process',
    )
    parser.add_argument('--backend', default='inductor')
    parser.add_argument('--batch-size', type=int, default=32)
    parser.add_argument('--steps', type=int, default=30, help='count the graphs in this number of first steps')
    parser.add_argument('--rounds', type=int, default=10, help='number of timings of each target, of four steps each')
    parser.add_argument('--out', type=Path, help='write the report as JSON')
    args = parser.parse_args()
    if len(compiled := [target for target in args.targets if target != 'nothing']) > 1:
        parser.error(f'--targets may name at most one target besides nothing, but got {", ".join(compiled)}')
    init_default_scope('mmpretrain')
    MessageHub.get_instance('compile_targets')
    counts, runs = {}, {}
    for target in args.targets:
        step = make_step(target, args.backend, args.batch_size)
        try:
            counts[target] = compile_and_count(step, args.steps)
        except Exception as error:
            counts[target] = {'fails': cause(error)}
            continue
        runs[target] = (step, 4)
    for target, found in counts.items():
        print(f'{target}: ' + ', '.join(f'{name} {value}' for name, value in found.items()))
    ratios = {f'{target} / nothing': lambda t, target=target: t[target] / t['nothing'] for target in runs}
    result = time_interleaved(runs, ratios if 'nothing' in runs else {}, args.rounds, torch.device('cpu'))
    print_times(result)
    if args.out:
        write_report(args.out, args, {**result, 'counts': counts})


if __name__ == '__main__':
    main()
