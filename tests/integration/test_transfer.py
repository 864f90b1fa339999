"""Pretraining, detection and segmentation with any family, on the data of the demo, each by one command."""

import os
from pathlib import Path

import mmdet
import mmseg
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from processes import ROOT, scalars, start

from smmix_mm.registry import MODELS

CONFIGS = ROOT / 'configs/digit_scenes'
PRETRAINING = CONFIGS / 'smmix_1xb32-8e_digit-scenes.py'
DENSE = {mmdet: CONFIGS / 'mask-rcnn_1xb8-3e_digit-scenes.py', mmseg: CONFIGS / 'fpn_1xb8-300_digit-scenes-128x128.py'}


def small(config: Path, data: Path) -> list[str]:
    """Options for a short run on few pictures."""
    sizes = {'sizes.train': 32, 'sizes.val': 8}
    settings = {
        f'{split}_dataloader.dataset.{key}': value
        for split in ('train', 'val', 'test')
        for key, value in dict(data_root=data / config.stem, **sizes).items()
    }
    settings |= {f'{split}_dataloader.num_workers': 0 for split in ('train', 'val')}
    settings |= {f'{split}_dataloader.persistent_workers': False for split in ('train', 'val')}
    settings['default_hooks.logger.interval'] = 1
    if 'fpn' in config.stem:
        settings |= {'train_cfg.max_iters': 2, 'train_cfg.val_interval': 2}
    else:
        settings['train_cfg.max_epochs'] = 1
    if 'mask-rcnn' in config.stem:
        for split in ('val', 'test'):
            settings[f'{split}_evaluator.ann_file'] = data / config.stem / 'annotations/instances_val.json'
    return ['--cfg-options', *(f'{key}={value}' for key, value in settings.items())]


def train(script: Path, config: Path, folder: Path, *options: str, family: str = 'vit') -> tuple[int, str]:
    """Runs a train script and returns its exit status and what it printed."""
    output = folder / f'{config.stem}.txt'
    arguments = (config, '--work-dir', folder / config.stem, *small(config, folder.parent / 'data'), *options)
    process = start(script, *arguments, outputs=[output, output], FAMILY=family)
    process.join(300)
    return process.exitcode, output.read_text()


@pytest.mark.parametrize('library', [pytest.param(mmdet, marks=pytest.mark.slow), mmseg], ids=['mmdet', 'mmseg'])
def test_their_own_scripts_refuse_a_partial_checkpoint_too(tmp_path, library):
    """mmengine alone would log what is missing, and train on."""
    cfg = Config.fromfile(PRETRAINING)
    init_default_scope('mmpretrain')
    weights = MODELS.build(cfg.model).state_dict()
    missing = weights.pop('backbone.layers.1.attn.qkv.weight')
    assert missing.shape == (288, 96)
    torch.save(dict(state_dict=weights), tmp_path / 'partial.pth')
    (tmp_path / 'run').mkdir()
    script = Path(library.__file__).parent / '.mim/tools/train.py'
    status, printed = train(
        script, DENSE[library], tmp_path / 'run', f'model.backbone.init_cfg.checkpoint={tmp_path / "partial.pth"}'
    )
    assert status == 1
    assert 'partial.pth does not fit VisionTransformer' in printed
    assert '"layers.1.attn.qkv.weight"' in printed.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize('family', ['vit', 'cait', 'swin', 'resnet', 'convnext'])
def test_every_family_is_pretrained_and_transferred(tmp_path, family):
    (tmp_path / 'run').mkdir()
    script = ROOT / 'tools/train.py'
    status, printed = train(script, PRETRAINING, tmp_path / 'run', family=family)
    assert status == 0, printed[-3000:]
    checkpoint = tmp_path / 'run' / PRETRAINING.stem / 'epoch_1.pth'
    for config in DENSE.values():
        status, printed = train(
            script, config, tmp_path / 'run', f'model.backbone.init_cfg.checkpoint={checkpoint}', family=family
        )
        assert status == 0, printed[-3000:]
        assert f'{os.fspath(checkpoint)}: loaded ' in printed
        rows = scalars(tmp_path / 'run' / config.stem)
        assert any('coco/segm_mAP' in row or 'mIoU' in row for row in rows)
        assert all(row['loss'] == row['loss'] for row in rows if 'loss' in row)
