"""Runs the demo: pretrains a small PVT with CutMix and with SMMix on the embedded data, then detects and segments.

Each pretraining runs with several seeds. All runs of a kind have the same budget. Two run in parallel, each on half of
the cores. All results are saved in work_dirs/demo.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.registry import DATASETS, init_default_scope

from smmix_mm.checkpoint import read_weights
from smmix_mm.engine import build_model
from smmix_mm.visualization import draw_mixed_batch
from smmix_mm.visualization.report import save_report

ROOT = Path(__file__).resolve().parents[1]
WORK_DIR = Path('work_dirs/demo')
SIDE_BY_SIDE = 2
NUM_PICTURES = 8
NUM_MIXED = 4
SEEDS = (0, 1, 2)
# Needs torch 2.4 on the CPU.
FASTER = 'optim_wrapper.optimizer.fused=True'
Result = TypeVar('Result')


@dataclass(frozen=True)
class Run:
    """One training with tools/train.py.

    Attributes:
        name: Name in progress lines and of the work directory.
        config: Path of the config.
        options: Further arguments of tools/train.py.
    """

    name: str
    config: str
    options: tuple[str, ...] = ()

    @property
    def work_dir(self) -> Path:
        return WORK_DIR / self.name

    @property
    def checkpoint(self) -> str:
        return (self.work_dir / 'last_checkpoint').read_text()


PRETRAINING = {
    method: [
        Run(
            f'{method.lower()}/seed-{seed}',
            f'configs/{method.lower()}/pvt-mini_{method.lower()}_1xb32-64e_digit-scenes-1000.py',
            ('--cfg-options', f'randomness.seed={seed}', FASTER),
        )
        for seed in SEEDS
    ]
    for method in ('CutMix', 'SMMix')
}
INITIALISATIONS = ('random', *PRETRAINING)


def main() -> None:
    started = time.time()
    # Configs name their data relative to the root of the repository.
    os.chdir(ROOT)
    pretrain()
    print(f'Pictures: {save_mixed_batch(PRETRAINING["SMMix"][0])}', flush=True)

    print(f'\nDetecting and segmenting from {", ".join(INITIALISATIONS)} weights', flush=True)
    detection = {
        name: transfer('mask_rcnn/mask-rcnn_pvt-mini{}_fpn_1xb8-3e_digit-scenes', name) for name in INITIALISATIONS
    }
    segmentation = {
        name: transfer('sem_fpn/fpn_pvt-mini{}_1xb8-300_digit-scenes-128x128', name) for name in INITIALISATIONS
    }
    train_all([*detection.values(), *segmentation.values()])
    print_table(
        ('backbone from', 'box AP', 'mask AP', 'mIoU (%)', 'mAcc (%)'),
        {
            name: (
                *(f'{last(detection[name], f"coco/{kind}_mAP"):.3f}' for kind in ('bbox', 'segm')),
                *(f'{last(segmentation[name], score):.1f}' for score in ('mIoU', 'mAcc')),
            )
            for name in INITIALISATIONS
        },
        f'One run each, from the weights of seed {SEEDS[0]}: differences of a few per cent are not significant.',
    )
    for folder in side_by_side(save_predictions, [detection['SMMix'], segmentation['SMMix']]):
        print(f'Pictures: {folder}', flush=True)
    report = WORK_DIR / 'report.html'
    save_report([WORK_DIR], report, 'SMMix and CutMix on DigitScenes', 'make demo')
    print(f'Took {time.time() - started:.0f} s. Report: {report}')


def pretrain() -> None:
    """Trains with every method and seed, and prints the accuracies."""
    print(f'Pretraining with {" and ".join(PRETRAINING)}, seeds {SEEDS}; logs are in {WORK_DIR}', flush=True)
    # Runs with the same seed side by side.
    pretraining = [run for runs in zip(*PRETRAINING.values(), strict=True) for run in runs]
    train_all(pretraining)
    clean = {method: [last(run, 'accuracy/top1') for run in runs] for method, runs in PRETRAINING.items()}
    found = dict(zip(pretraining, side_by_side(test_corrupted, pretraining), strict=True))
    corrupted = {method: [found[run] for run in runs] for method, runs in PRETRAINING.items()}
    print_table(
        ('pretrained with', 'top-1 (%)', 'top-1 of corrupted pictures (%)', 'time per step (ms)'),
        {
            method: (
                spread(clean[method]),
                spread(corrupted[method]),
                f'{1000 * statistics.fmean(mean(run, "time") for run in runs):.0f}',
            )
            for method, runs in PRETRAINING.items()
        },
        f'Mean and sample standard deviation of {len(SEEDS)} seeds.',
    )
    for name, scores in (('top-1', clean), ('top-1 of corrupted pictures', corrupted)):
        differences = [ours - theirs for ours, theirs in zip(scores['SMMix'], scores['CutMix'], strict=True)]
        by_seed = ', '.join(f'{difference:+.1f}' for difference in differences)
        print(f'SMMix - CutMix in {name}: {statistics.fmean(differences):+.1f}, by seed {by_seed}')


def transfer(config: str, initialisation: str) -> Run:
    """Returns the training of a dense task whose backbone starts from random or pretrained weights."""
    task = config.partition('/')[0]
    name = f'{task}_{initialisation.lower()}'
    if initialisation == 'random':
        return Run(name, f'configs/{config.format("-scratch")}.py', ('--cfg-options', FASTER))
    setting = f'model.backbone.init_cfg.checkpoint={PRETRAINING[initialisation][0].checkpoint}'
    return Run(name, f'configs/{config.format("")}.py', ('--cfg-options', setting, FASTER))


def train_all(runs: Sequence[Run]) -> None:
    """Trains all.

    Raises:
        SystemExit: If a training fails, after the other runs have ended.
    """
    failed = [run.name for run, code in zip(runs, side_by_side(train, runs), strict=True) if code]
    if failed:
        raise SystemExit(f'the training of {", ".join(failed)} failed; see the lines above')


def side_by_side(function: Callable[[Run], Result], runs: Sequence[Run]) -> list[Result]:
    with ThreadPoolExecutor(SIDE_BY_SIDE) as lanes:
        return list(lanes.map(function, runs))


def train(run: Run) -> int:
    """Trains and prints mmengine's progress; if it fails, also the last lines of its output."""
    process = subprocess.Popen(
        [sys.executable, 'tools/train.py', run.config, '--work-dir', run.work_dir, *run.options],
        env=own_cores(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    tail = []
    for line in process.stdout:
        tail = [*tail[-30:], line]
        if 'Epoch(' in line or 'Iter(' in line:
            print(f'{run.name:>17}  {line.split(" - INFO - ")[-1].rstrip()}', flush=True)
    if process.wait():
        print(''.join(tail), file=sys.stderr)
    return process.returncode


def own_cores() -> dict[str, str]:
    """The environment of one of the processes that run side by side."""
    threads = str(max(1, len(os.sched_getaffinity(0)) // SIDE_BY_SIDE))
    return {**os.environ, 'OMP_NUM_THREADS': threads, 'MKL_NUM_THREADS': threads}


def record(run: Run) -> list[dict[str, float]]:
    """Reads the values that mmengine logged during the latest training in the work directory."""
    path = max(run.work_dir.glob('*/vis_data/scalars.json'))
    return [json.loads(line) for line in path.read_text().splitlines()]


def last(run: Run, score: str) -> float:
    return [row[score] for row in record(run) if score in row][-1]


def mean(run: Run, value: str) -> float:
    """Averages a value over the logged lines of training."""
    return statistics.fmean(row[value] for row in record(run) if 'loss' in row)


def save_mixed_batch(run: Run) -> Path:
    """Draws how validation pictures are mixed with the attention of a trained model."""
    init_default_scope('mmpretrain')
    cfg = Config.fromfile(run.config)
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    model = build_model(cfg)
    model.load_state_dict(read_weights(run.checkpoint))
    chosen = torch.linspace(0, len(dataset) - 1, NUM_MIXED).long().tolist()
    batch = model.data_preprocessor(default_collate([dataset[index] for index in chosen]))
    labels = [str(sample.gt_label.item()) for sample in batch['data_samples']]
    path = WORK_DIR / 'mixed.png'
    draw_mixed_batch(model, batch['inputs'], labels, path)
    return path


def save_predictions(run: Run) -> Path:
    """Draws the predictions of tools/test.py for a few pictures, beside the ground truth."""
    folder = run.work_dir / 'predictions'
    options = ['--work-dir', run.work_dir / 'test', '--cfg-options', f'test_dataloader.dataset.indices={NUM_PICTURES}']
    call(run, 'test.py', '--show-dir', folder, *options)
    return folder


def test_corrupted(run: Run) -> float:
    """The mean accuracy under noise, blur, low contrast and occlusion of medium strength."""
    out = run.work_dir / 'robustness'
    call(run, 'analysis_tools/robustness.py', '--severities', 3, '--out', out)
    return json.loads((out / 'robustness.json').read_text())['corruptions']['overall']


def call(run: Run, tool: str, *options: object) -> None:
    """Calls a tool that takes the config and the checkpoint of a run.

    Raises:
        SystemExit: If it fails.
    """
    command = [sys.executable, f'tools/{tool}', run.config, run.checkpoint, *map(str, options)]
    done = subprocess.run(command, env=own_cores(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise SystemExit(f'{done.stdout[-3000:]}\n{tool} failed on the run {run.name}; see the lines above')


def spread(values: Sequence[float]) -> str:
    return f'{statistics.fmean(values):.1f} ± {statistics.stdev(values):.1f}'


def print_table(head: Sequence[str], rows: dict[str, Sequence[str]], remark: str) -> None:
    lines = [head, ['---'] * len(head), *([name, *cells] for name, cells in rows.items())]
    print('\n' + '\n'.join(f'| {" | ".join(line)} |' for line in lines))
    print(f'\n{remark}')


if __name__ == '__main__':
    main()
