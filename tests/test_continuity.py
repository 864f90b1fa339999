"""Checkpoints of earlier versions load and resume.

``python tests/test_continuity.py`` made ``tests/data/continuity`` with the code of commit fc4719a, before methods asked
by questions and before the packages of checkpoints and of resuming were taken out of ``engine``.
"""

import copy
import json
import shutil
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import backbone_cfg, head_cfg, randomize
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, save_checkpoint

from smmix_mm.registry import MODELS

DATA = Path(__file__).parent / 'data/continuity'
SMMIX = [dict(type='mmpretrain.Mixup', alpha=0.8), dict(type='smmix_mm.SMMix')]
CLASSIFIERS = {
    'smmix_deit': ('vit', SMMIX),
    'smmix_pvt': ('pvt', SMMIX),
    'automix': ('vit', [dict(type='smmix_mm.AutoMix')]),
}
STEPS, SAVED = 9, 5


def build(name: str) -> torch.nn.Module:
    family, augments = copy.deepcopy(CLASSIFIERS[name])
    parts = dict(backbone=backbone_cfg(family), head=head_cfg(family), train_cfg=dict(augments=augments))
    return MODELS.build(dict(type='smmix_mm.MixingClassifier', **parts))


def make_images() -> torch.Tensor:
    return torch.linspace(-2, 2, 2 * 3 * 32 * 32).sin().view(2, 3, 32, 32)


def build_runner(folder: Path, **settings: object) -> Runner:
    """A run of three epochs of three batches of SMMix and Mixup, which saves a checkpoint amid the second epoch."""
    rng = np.random.default_rng(0)
    for index in range(12):
        path = folder / f'images/class{index % 4}/{index}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    pipeline = [
        dict(type='smmix_mm.LoadImage'),
        dict(type='mmpretrain.RandomFlip', prob=0.5, direction='horizontal'),
        dict(type='mmpretrain.PackInputs'),
    ]
    head = dict(type='mmpretrain.VisionTransformerClsHead', num_classes=4, in_channels=32)
    backbone = backbone_cfg('vit', drop_path_rate=0.1)
    cfg = dict(
        default_scope='mmpretrain',
        model=dict(
            type='smmix_mm.MixingClassifier',
            backbone=backbone,
            head=head,
            train_cfg=dict(augments=copy.deepcopy(SMMIX)),
        ),
        data_preprocessor=dict(mean=[127.5] * 3, std=[60.0] * 3),
        train_dataloader=dict(
            batch_size=4,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=True),
            collate_fn=dict(type='default_collate'),
            dataset=dict(type='mmpretrain.CustomDataset', data_root=str(folder / 'images'), pipeline=pipeline),
        ),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
        param_scheduler=[dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=STEPS)],
        train_cfg=dict(type='smmix_mm.EpochBasedTrainLoop', max_epochs=3),
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=1),
            checkpoint=dict(type='smmix_mm.CheckpointHook', by_epoch=False, interval=SAVED, save_last=False),
        ),
        randomness=dict(seed=3),
        work_dir=str(folder / 'run'),
        log_level='WARNING',
        **settings,
    )
    return Runner.from_cfg(Config(cfg))


def read_losses(folder: Path) -> dict[int, float]:
    lines = [line for file in folder.glob('run/*/vis_data/scalars.json') for line in file.read_text().splitlines()]
    return {row['step']: row['loss'] for row in map(json.loads, lines)}


@pytest.mark.parametrize('name', CLASSIFIERS)
def test_a_classifier_of_before_says_the_same(name):
    saved = torch.load(DATA / f'{name}.pth', weights_only=True)
    model = build(name)
    model.load_state_dict(saved['state_dict'])
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(make_images()), saved['logits'], rtol=1e-4, atol=1e-5)


def test_a_run_of_before_goes_on_amid_an_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    (tmp_path / 'run').mkdir()
    shutil.copy(DATA / f'iter_{SAVED}.pth', tmp_path / 'run')
    build_runner(tmp_path, load_from=str(tmp_path / f'run/iter_{SAVED}.pth'), resume=True).train()
    expected = {int(step): loss for step, loss in json.loads((DATA / 'losses.json').read_text()).items()}
    found = read_losses(tmp_path)
    assert sorted(found) == list(range(SAVED + 1, STEPS + 1))
    assert found == pytest.approx({step: expected[step] for step in found}, rel=1e-3)


if __name__ == '__main__':
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    DATA.mkdir(parents=True, exist_ok=True)
    for made in CLASSIFIERS:
        classifier = randomize(build(made)).eval()
        with torch.no_grad():
            content = dict(state_dict=classifier.state_dict(), logits=classifier(make_images()))
        save_checkpoint(content, str(DATA / f'{made}.pth'))
    place = Path(tempfile.mkdtemp())
    build_runner(place).train()
    shutil.copy(place / f'run/iter_{SAVED}.pth', DATA)
    (DATA / 'losses.json').write_text(json.dumps(read_losses(place)))
    sys.exit()
