"""Runs the demo: pretrains a small PVT with CutMix and with SMMix on the embedded data, then detects and segments.

All runs of a kind have the same budget. Two run in parallel, each on half of the cores. All results are saved in
work_dirs/demo.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

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
    method: Run(method.lower(), f'configs/{method.lower()}/pvt-mini_{method.lower()}_1xb32-8e_digit-scenes.py')
    for method in ('CutMix', 'SMMix')
}
INITIALISATIONS = ('random', *PRETRAINING)


def main() -> None:
    started = time.time()
    # Configs name their data relative to the root of the repository.
    os.chdir(ROOT)
    print(f'Pretraining with {" and ".join(PRETRAINING)}; logs are in {WORK_DIR}', flush=True)
    train_all(list(PRETRAINING.values()))
    print_table(
        ('pretrained with', 'top-1 (%)', 'top-1 of corrupted pictures (%)', 'time per step (ms)'),
        {
            method: (
                f'{last(run, "accuracy/top1"):.1f}',
                f'{test_corrupted(run):.1f}',
                f'{1000 * mean(run, "time"):.0f}',
            )
            for method, run in PRETRAINING.items()
        },
    )
    print(f'Pictures: {save_mixed_batch(PRETRAINING["SMMix"])}', flush=True)

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
    )
    for run in (detection['SMMix'], segmentation['SMMix']):
        print(f'Pictures: {save_predictions(run)}', flush=True)
    report = WORK_DIR / 'report.html'
    save_report([WORK_DIR], report, 'SMMix and CutMix on DigitScenes', 'make demo')
    print(f'Took {time.time() - started:.0f} s. Report: {report}')


def transfer(config: str, initialisation: str) -> Run:
    """Returns the training of a dense task whose backbone starts from random or pretrained weights."""
    task = config.partition('/')[0]
    name = f'{task}_{initialisation.lower()}'
    if initialisation == 'random':
        return Run(name, f'configs/{config.format("-scratch")}.py')
    setting = f'model.backbone.init_cfg.checkpoint={PRETRAINING[initialisation].checkpoint}'
    return Run(name, f'configs/{config.format("")}.py', ('--cfg-options', setting))


def train_all(runs: Sequence[Run]) -> None:
    """Trains, ``SIDE_BY_SIDE`` runs at a time.

    Raises:
        SystemExit: If a training fails, after the other runs have ended.
    """
    with ThreadPoolExecutor(SIDE_BY_SIDE) as lanes:
        codes = list(lanes.map(train, runs))
    failed = [run.name for run, code in zip(runs, codes, strict=True) if code]
    if failed:
        raise SystemExit(f'the training of {", ".join(failed)} failed; see the lines above')


def train(run: Run) -> int:
    """Trains and prints mmengine's progress; if it fails, also the last lines of its output."""
    threads = str(max(1, len(os.sched_getaffinity(0)) // SIDE_BY_SIDE))
    process = subprocess.Popen(
        [sys.executable, 'tools/train.py', run.config, '--work-dir', run.work_dir, *run.options],
        env={**os.environ, 'OMP_NUM_THREADS': threads, 'MKL_NUM_THREADS': threads},
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
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise SystemExit(f'{done.stdout[-3000:]}\n{tool} failed on the run {run.name}; see the lines above')


def print_table(head: Sequence[str], rows: dict[str, Sequence[str]]) -> None:
    lines = [head, ['---'] * len(head), *([name, *cells] for name, cells in rows.items())]
    print('\n' + '\n'.join(f'| {" | ".join(line)} |' for line in lines))
    print('\nTen classes, one run each: differences of a few per cent are not significant.')


if __name__ == '__main__':
    main()
