"""The demo, whole."""

import re
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_demo_learns_and_leaves_its_pictures():
    """Both reach 60 % of ten classes; which is better is not claimed."""
    done = subprocess.run([sys.executable, ROOT / 'tools/demo.py'], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    table = dict(re.findall(r'^\| (CutMix|SMMix) \| ([0-9.]+) \|', done.stdout, re.MULTILINE))
    assert table.keys() == {'CutMix', 'SMMix'}
    assert min(map(float, table.values())) >= 60
    picture = matplotlib.image.imread(ROOT / 'work_dirs/demo/mixed.png')
    # Eight rows of six panels.
    assert 1.1 < picture.shape[0] / picture.shape[1] < 1.6
