"""Real runs over real files, some of which cannot be read."""

import itertools
import re

import cv2
import numpy as np
import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from processes import scalars
from torch import nn

from smmix_mm.engine import ReadableImagesHook

IMAGES = 40
RUNS = itertools.count()


class Mean(BaseModel):
    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, inputs, data_samples=None, mode='loss'):
        return dict(loss=self.factor * torch.stack(inputs).float().mean())


@pytest.fixture
def folder(tmp_path):
    """Two classes of JPEGs."""
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, 24, 24, 3), dtype=np.uint8)
    for index, image in enumerate(pixels):
        path = tmp_path / 'data' / str(index % 2) / f'{index:02d}.jpg'
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image)
    return tmp_path / 'data'


def spoil(folder, *numbers):
    """Truncates files in the midst; their paths, in the order in which an unshuffled run meets them."""
    paths = [folder / str(number % 2) / f'{number:02d}.jpg' for number in numbers]
    for path in paths:
        path.write_bytes(path.read_bytes()[:300])
    return paths


def make_runner(folder, epochs=1, work_dir='run', num_workers=0, **hook):
    return Runner(
        model=Mean(),
        work_dir=str(folder.parent / work_dir),
        train_dataloader=dict(
            batch_size=4,
            num_workers=num_workers,
            dataset=dict(
                type='mmpretrain.CustomDataset',
                data_root=str(folder),
                pipeline=[dict(type='smmix_mm.LoadImage'), dict(type='mmpretrain.PackInputs')],
            ),
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='pseudo_collate'),
        ),
        train_cfg=dict(type='smmix_mm.EpochBasedTrainLoop', max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.0)),
        default_hooks=dict(
            readable_images=dict(type='smmix_mm.ReadableImagesHook', **hook), logger=dict(type='LoggerHook', interval=1)
        ),
        experiment_name=f'readable_images_{next(RUNS)}',
        randomness=dict(seed=0),
        default_scope='mmpretrain',
    )


def warned_of(work_dir):
    (log,) = work_dir.glob('*/*.log')
    return re.findall(r'WARNING - replaced by another image: image (\S+) cannot be read', log.read_text())


def test_replaced_images_are_named_once_and_counted(folder, tmp_path):
    """Of 80 images seen 2 files are unreadable, in each of two epochs; others replace them."""
    paths = spoil(folder, 2, 21)
    runner = make_runner(folder, epochs=2, max_share=0.1, min_images=1)
    # The first is in the first batch of four, and one of four is too many.
    with pytest.raises(RuntimeError, match='1 of the 4 images seen until epoch 1, iteration 1 '):
        runner.train()

    runner = make_runner(folder, epochs=2, work_dir='whole', num_workers=2, max_share=0.1, min_images=40)
    runner.train()
    assert warned_of(tmp_path / 'whole') == [str(path) for path in paths]
    assert runner.message_hub.get_info('seen_images') == 2 * IMAGES
    assert runner.message_hub.get_info('replaced_images') == 4
    logged = [line['replaced_images'] for line in scalars(tmp_path / 'whole')]
    # 20 files of class 0 come first: 02.jpg is the second of them, 21.jpg the eleventh of class 1.
    assert logged == [1] * 7 + [2] * 3 + [3] * 7 + [4] * 3


def test_too_many_stop_the_run(folder):
    """The tenth part is allowed of 40 images, whether all were seen or not: the fifth stops."""
    paths = spoil(folder, 0, 8, 16, 24, 32, 39)
    with pytest.raises(RuntimeError) as raised:
        make_runner(folder, max_share=0.1, min_images=40).train()
    message = str(raised.value)
    assert message.startswith('5 of the 20 images seen until epoch 1, iteration 5 could not be read and were replaced')
    assert '(25.00%), but ReadableImagesHook allows max_share=0.1 of 40 images' in message
    assert all(str(path) in message for path in paths[:5]) and str(paths[5]) not in message


def test_no_share_allows_none(folder):
    spoil(folder, 39)
    with pytest.raises(RuntimeError, match='1 of the 40 images'):
        make_runner(folder, max_share=0.0).train()


def test_counts_survive_a_resume(folder):
    spoil(folder, 2, 21)
    hook = dict(max_share=0.05, min_images=40)
    make_runner(folder, epochs=1, **hook).train()
    runner = make_runner(folder, epochs=2, **hook)
    runner._resume = True
    # Of 44 images 2.2 may be replaced: the two of the first epoch, and not one of them again.
    with pytest.raises(RuntimeError, match='3 of the 44 images seen until epoch 2, iteration 11 '):
        runner.train()


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(max_share=1.5), 'max_share .* between 0 and 1, but got 1.5'),
        (dict(min_images=0), 'min_images .* at least 1, but got 0'),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        ReadableImagesHook(**settings)
