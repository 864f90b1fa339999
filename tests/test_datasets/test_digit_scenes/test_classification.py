"""The embedded data: real digits, the same bytes for the same seed, no original in both splits."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from processes import start
from sklearn.datasets import load_digits

from smmix_mm.datasets import DigitScenes
from smmix_mm.datasets.digit_scenes.scenes import SceneStyle, draw_scene, load_split

SIZES = dict(train=40, val=20)
PIPELINE = [dict(type='smmix_mm.LoadImage'), dict(type='mmpretrain.PackInputs')]


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob('*')) if path.is_file()}


def test_splits_share_no_original_digit():
    train, val = load_split('train'), load_split('val')
    assert len(train.glyphs) + len(val.glyphs) == 1797
    counts = {}
    for glyph in load_digits().images:
        counts[glyph.tobytes()] = counts.get(glyph.tobytes(), 0) + 1
    seen = {(16 * glyph).astype(float).tobytes() for glyph in train.glyphs}
    shared = {(16 * glyph).astype(float).tobytes() for glyph in val.glyphs} & seen
    # Two writers' digits may look the same; those are two originals.
    assert all(counts[glyph] > 1 for glyph in shared)
    assert set(train.labels) == set(val.labels) == set(range(10))


def test_digit_is_where_the_ink_is():
    """Without fragments and noise, what differs from the empty scene measures 24 to 40 pixels at most."""
    style = SceneStyle(fragments=(0, 0), noise=0.0)
    digits = load_split('train')
    sides = []
    for index in range(50):
        image, label = draw_scene(digits, [0, index], style)
        assert image.shape == (64, 64, 3)
        assert 0 <= label <= 9
        rows, cols = np.nonzero(image.max(axis=2) > 140)
        sides.append(max(np.ptp(rows), np.ptp(cols)) + 1)
    assert min(sides) >= 12
    assert 30 <= max(sides) <= 48


def test_same_seed_same_bytes(tmp_path):
    for name, seed in (('a', 0), ('b', 0), ('c', 1)):
        DigitScenes(data_root=str(tmp_path / name), sizes=SIZES, seed=seed)
    a, b, c = (files(tmp_path / name) for name in 'abc')
    assert a == b
    assert a.keys() != c.keys() or a != c
    assert len(a) == sum(SIZES.values()) + 1


def test_reads_back_what_was_drawn(tmp_path):
    dataset = DigitScenes(data_root=str(tmp_path / 'data'), split='val', sizes=SIZES, seed=3, pipeline=PIPELINE)
    assert len(dataset) == SIZES['val']
    drawn = [draw_scene(load_split('val'), [3, 1, index]) for index in range(SIZES['val'])]
    for sample in dataset:
        index = int(Path(sample['data_samples'].img_path).stem)
        image, label = drawn[index]
        assert sample['data_samples'].gt_label.item() == label
        assert np.array_equal(sample['inputs'].numpy(), image.transpose(2, 0, 1))


def test_made_once_and_anew_for_other_settings(tmp_path):
    root = tmp_path / 'data'
    DigitScenes(data_root=str(root), sizes=SIZES)
    stamp = (root / 'manifest.json').stat().st_mtime_ns
    DigitScenes(data_root=str(root), split='val', sizes=SIZES)
    assert (root / 'manifest.json').stat().st_mtime_ns == stamp
    assert len(DigitScenes(data_root=str(root), sizes=dict(train=12, val=4))) == 12
    assert {path.name for path in tmp_path.iterdir()} == {'data', '.data.lock'}


def test_runs_side_by_side_make_it_once(tmp_path):
    """Real processes; the second one waits for the first, and neither takes the data away from the other."""
    script, outputs = tmp_path / 'make.py', [tmp_path / f'{run}.txt' for run in range(2)]
    script.write_text(
        'from smmix_mm.datasets.digit_scenes import DigitScenes, generated_folder\n'
        'make = generated_folder._make\n'
        'generated_folder._make = lambda *args: (print("made", flush=True), make(*args))\n'
        f'print(len(DigitScenes(data_root={str(tmp_path / "data")!r}, sizes=dict(train=300, val=20))))'
    )
    runs = [start(script, outputs=[output, output]) for output in outputs]
    for run in runs:
        run.join(120)
    assert [run.exitcode for run in runs] == [0, 0]
    printed = [output.read_text() for output in outputs]
    assert sum(text.count('made') for text in printed) == 1
    assert all(text.split()[-1] == '300' for text in printed)


def test_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / 'mine.txt').write_text('mine')
    with pytest.raises(FileExistsError, match=str(tmp_path)):
        DigitScenes(data_root=str(tmp_path), sizes=SIZES)
    assert (tmp_path / 'mine.txt').read_text() == 'mine'
    with pytest.raises(ValueError, match='split of DigitScenes'):
        DigitScenes(data_root=str(tmp_path), split='test')


def test_interrupted_making_leaves_nothing(tmp_path, monkeypatch):
    written = []

    def fail(path, *_):
        written.append(path)
        return len(written) < 10

    monkeypatch.setattr(cv2, 'imwrite', fail)
    with pytest.raises(OSError, match='could not write'):
        DigitScenes(data_root=str(tmp_path / 'data'), sizes=SIZES)
    assert [path.name for path in tmp_path.iterdir()] == ['.data.lock']
