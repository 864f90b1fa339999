"""The demo: pretrains a small PVT with CutMix and with SMMix on the embedded data, and compares.

Both runs have the same budget and go side by side, each on half of the cores. Everything lands in work_dirs/demo.
"""

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.registry import init_default_scope

from smmix_mm.datasets import DigitScenes
from smmix_mm.engine import read_weights
from smmix_mm.registry import MODELS
from smmix_mm.visualization import draw_mixed_batch

ROOT = Path(__file__).resolve().parents[1]
WORK_DIR = ROOT / 'work_dirs' / 'demo'
CONFIGS = {
    'CutMix': ROOT / 'configs/cutmix/pvt-mini_cutmix_1xb32-8e_digit-scenes.py',
    'SMMix': ROOT / 'configs/smmix/pvt-mini_smmix_1xb32-8e_digit-scenes.py',
}
NUM_PICTURES = 8


def main() -> None:
    started = time.time()
    # Configs name their data relative to the root of the repository.
    os.chdir(ROOT)
    init_default_scope('mmpretrain')
    dataset_cfg = Config.fromfile(CONFIGS['SMMix']).val_dataloader.dataset
    dataset = DigitScenes(**{key: value for key, value in dataset_cfg.items() if key != 'type'})
    print(
        f'Pretraining with {" and ".join(CONFIGS)}, side by side; logs are in {WORK_DIR.relative_to(ROOT)}', flush=True
    )
    train_all()
    results = {name: read_result(WORK_DIR / name.lower()) for name in CONFIGS}
    picture = save_pictures(dataset)
    print_table(results)
    print(f'Pictures: {picture.relative_to(ROOT)}')
    print(f'Took {time.time() - started:.0f} s.')


def train_all() -> None:
    """Runs tools/train.py for both configs at once and passes on the progress that mmengine prints."""
    threads = max(1, len(os.sched_getaffinity(0)) // len(CONFIGS))
    environment = {**os.environ, 'OMP_NUM_THREADS': str(threads), 'MKL_NUM_THREADS': str(threads)}
    runs = {}
    for name, config in CONFIGS.items():
        command = [sys.executable, 'tools/train.py', config, '--work-dir', WORK_DIR / name.lower()]
        run = subprocess.Popen(
            command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        reader = threading.Thread(target=pass_on, args=(name, run))
        reader.start()
        runs[name] = run, reader
    for _, reader in runs.values():
        reader.join()
    failed = [name for name, (run, _) in runs.items() if run.returncode]
    if failed:
        raise SystemExit(f'the training with {" and ".join(failed)} failed; see the lines above')


def pass_on(name: str, run: subprocess.Popen) -> None:
    """Prints a run's lines of progress under its name; all of its last lines if it fails."""
    tail = []
    for line in run.stdout:
        tail = [*tail[-30:], line]
        if 'Epoch(' in line:
            print(f'{name:>6}  {line.split(" - INFO - ")[-1].rstrip()}', flush=True)
    if run.wait():
        print(''.join(tail), file=sys.stderr)


def read_result(work_dir: Path) -> dict[str, float]:
    """Last accuracy and mean time of a step of the latest run in a work directory, from mmengine's own record."""
    record = max(work_dir.glob('*/vis_data/scalars.json'))
    rows = [json.loads(line) for line in record.read_text().splitlines()]
    return dict(
        top1=[row['accuracy/top1'] for row in rows if 'accuracy/top1' in row][-1],
        seconds=statistics.fmean(row['time'] for row in rows if 'loss' in row),
    )


def save_pictures(dataset: DigitScenes) -> Path:
    """Draws what the model trained with SMMix does to pictures that it was not trained on."""
    model = MODELS.build(Config.fromfile(CONFIGS['SMMix']).model)
    checkpoint = (WORK_DIR / 'smmix' / 'last_checkpoint').read_text()
    model.load_state_dict(read_weights(checkpoint))
    chosen = torch.linspace(0, len(dataset) - 1, NUM_PICTURES).long().tolist()
    batch = model.data_preprocessor(default_collate([dataset[index] for index in chosen]))
    labels = [str(sample.gt_label.item()) for sample in batch['data_samples']]
    path = WORK_DIR / 'mixed.png'
    draw_mixed_batch(model, batch['inputs'], labels, path)
    return path


def print_table(results: dict[str, dict[str, float]]) -> None:
    print('\n| pretrained with | top-1 (%) | time per step (ms) |\n|---|---|---|')
    for name, result in results.items():
        print(f'| {name} | {result["top1"]:.1f} | {1000 * result["seconds"]:.0f} |')
    print('\nTen classes, one run each: differences of a few per cent are chance.')


if __name__ == '__main__':
    main()
