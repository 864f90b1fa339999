"""The demo, whole."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import cv2
import matplotlib.image
import numpy as np
import pytest
import torch.nn.functional as F

from smmix_mm.models import MixingClassifier

ROOT = Path(__file__).resolve().parents[2]
WORK_DIR = ROOT / 'work_dirs/demo'


@pytest.fixture(scope='module')
def printed() -> str:
    done = subprocess.run([sys.executable, ROOT / 'tools/demo.py'], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def read_rows(printed: str, columns: int) -> dict[str, list[float]]:
    """Rows of the table with so many columns, by their first; of mean ± spread, the means."""
    cells = [line.strip('| ').split(' | ') for line in printed.splitlines() if line.startswith('| ')]
    rows = {row[0]: row[1:] for row in cells if len(row) == columns}
    return {
        name: [float(cell.split(' ± ')[0]) for cell in row]
        for name, row in rows.items()
        if re.match(r'[\d.]+( ± [\d.]+)?$', row[0])
    }


def score_of_all_background() -> float:
    """mIoU (%) of the validation pictures if every pixel is called background: that class's alone, of eleven."""
    maps = [cv2.imread(str(path), -1) for path in (ROOT / 'data/digit_scenes_dense/annotations/val').glob('*.png')]
    labelled = np.concatenate([label_map[label_map > 0] for label_map in maps])
    return 100 * (labelled == 1).mean() / 11


@pytest.mark.slow
def test_both_pretrainings_learn(printed):
    """45 % of ten classes from 1 000 pictures, the means of three seeds; which is better is not claimed."""
    rows = read_rows(printed, columns=4)
    assert rows.keys() == {'CutMix', 'SMMix'}
    assert min(accuracy for accuracy, _, _ in rows.values()) >= 45
    # Corruptions cost accuracy, and leave more than chance.
    assert all(15 <= corrupted < accuracy for accuracy, corrupted, _ in rows.values())
    picture = matplotlib.image.imread(WORK_DIR / 'mixed.png')
    # Four rows of six panels.
    assert 0.6 < picture.shape[0] / picture.shape[1] < 0.8


@pytest.mark.slow
@pytest.mark.usefixtures('printed')
def test_the_drawn_attention_lies_on_the_digits(monkeypatch):
    """The most attended tokens hold more of the digits' pixels, which are the brightest, than tokens at large."""
    demo, asked = runpy.run_path(str(ROOT / 'tools/demo.py'), run_name='demo'), []
    monkeypatch.chdir(ROOT)
    motivate = MixingClassifier.motivate

    def watch(model, question, images, targets=None):
        told = motivate(model, question, images, targets)
        asked.append((images, told.attention))
        return told

    monkeypatch.setattr(MixingClassifier, 'motivate', watch)
    demo['save_mixed_batch'](demo['PRETRAINING']['SMMix'][0])
    images, attention = asked[0]
    bright = (images.mean(dim=1, keepdim=True) > 1.0).float()
    ink = F.adaptive_avg_pool2d(bright, attention.shape[-2:])[:, 0].flatten(1)
    strongest = attention.flatten(1).topk(attention[0].numel() // 8).indices
    assert (ink.gather(1, strongest).mean(dim=1) > ink.mean(dim=1)).sum() >= len(images) - 1
    assert ink.gather(1, strongest).mean() > 1.5 * ink.mean()


@pytest.mark.slow
def test_pretrained_backbones_detect_and_segment(printed):
    rows = read_rows(printed, columns=5)
    assert rows.keys() == {'random', 'CutMix', 'SMMix'}
    for name in ('CutMix', 'SMMix'):
        box_ap, mask_ap, miou, macc = rows[name]
        assert box_ap >= 0.45
        assert mask_ap >= 0.45
        assert miou >= 2 * score_of_all_background()
        assert macc >= 2 * 100 / 11
    for task in ('mask_rcnn', 'sem_fpn'):
        pictures = [cv2.imread(str(path)) for path in (WORK_DIR / f'{task}_smmix/predictions').iterdir()]
        assert len(pictures) == 8
        # Truth and prediction side by side, enlarged to leave room for text.
        assert all(picture.shape == (384, 2 * 480, 3) and picture.std() > 5 for picture in pictures)
