"""TensorBoard and W&B by the one line of docs/train_test.md, in all three libraries and in a real training."""

import io
import itertools
import json

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import VISUALIZERS, init_default_scope
from PIL import Image
from processes import ROOT, run
from resumable import small_config, write_images
from test_docs import read_example

PACKAGES = dict(tensorboard='tensorboard', wandb='wandb')
LIBRARIES = dict(
    mmpretrain='smmix/pvt-mini_smmix_1xb32-8e_digit-scenes',
    mmdet='mask_rcnn/mask-rcnn_pvt-mini_fpn_1xb8-3e_digit-scenes',
    mmseg='sem_fpn/fpn_pvt-mini_1xb8-300_digit-scenes-128x128',
)
OFFLINE = dict(WANDB_MODE='offline', WANDB_SILENT='true')
NAMES = itertools.count()


@pytest.fixture
def tracker(request, monkeypatch):
    """The name of a tracker whose package is installed."""
    pytest.importorskip(PACKAGES[request.param])
    for name, value in OFFLINE.items():
        monkeypatch.setenv(name, value)
    return request.param


def read_line(name: str) -> dict:
    scope = {}
    exec(read_example('docs/train_test.md', name), scope)
    return scope['visualizer']


def read_images(name, folder, tag='mixed_batch') -> list[np.ndarray]:
    """The images that a tracker holds, in the order of their steps."""
    if name == 'wandb':
        files = folder.rglob(f'offline-run-*/files/media/images/{tag}_*.png')
        encoded = [file.read_bytes() for file in sorted(files, key=lambda file: int(file.name.split('_')[-2]))]
    else:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        (file,) = folder.rglob('events.out.*')
        events = EventAccumulator(str(file)).Reload()
        encoded = [event.encoded_image_string for event in events.Images(tag)]
        assert events.Scalars('loss')
    return [np.asarray(Image.open(io.BytesIO(content)).convert('RGB')) for content in encoded]


@pytest.mark.parametrize('library', LIBRARIES)
@pytest.mark.parametrize('tracker', PACKAGES, indirect=True)
def test_the_line_of_the_docs_works_in_every_library(tracker, library, tmp_path):
    cfg = Config.fromfile(ROOT / f'configs/{LIBRARIES[library]}.py')
    cfg.merge_from_dict(dict(visualizer=read_line(tracker)))
    init_default_scope(cfg.default_scope)
    settings = dict(cfg.visualizer, name=f'tracker_{next(NAMES)}', save_dir=str(tmp_path))
    visualizer = VISUALIZERS.build(settings)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    visualizer.add_scalars(dict(loss=0.5), step=3)
    visualizer.add_image('mixed_batch', pixels, step=3)
    visualizer.close()
    (found,) = read_images(tracker, tmp_path)
    np.testing.assert_array_equal(found, pixels)
    # The local backend is still there.
    (scalars,) = tmp_path.rglob('scalars.json')
    assert json.loads(scalars.read_text()) == dict(loss=0.5, step=3)


# W&B starts a process of its own and waits for it.
@pytest.mark.parametrize('tracker', ['tensorboard', pytest.param('wandb', marks=pytest.mark.slow)], indirect=True)
def test_a_training_sends_its_pictures(tracker, tmp_path):
    for split in ('train', 'val'):
        write_images(tmp_path / split, 24)
    cfg = small_config(tmp_path)
    cfg.merge_from_dict(dict(visualizer=dict(type='mmpretrain.UniversalVisualizer', **read_line(tracker))))
    cfg.train_cfg.max_epochs = 1
    cfg.dump(tmp_path / 'config.py')
    hook = 'default_hooks.mixed_batch'
    options = [f'{hook}.type=smmix_mm.MixedBatchHook', f'{hook}.interval=1']
    run('train.py', tmp_path / 'config.py', '--work-dir', tmp_path / 'run', '--cfg-options', *options, **OFFLINE)
    local = sorted((tmp_path / 'run').rglob('vis_image/mixed_batch_*.png'))
    sent = read_images(tracker, tmp_path / 'run')
    assert [path.name for path in local] == [f'mixed_batch_{step}.png' for step in (1, 2, 3)]
    for path, pixels in zip(local, sent, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), pixels)
    assert not np.array_equal(sent[0], sent[1])
