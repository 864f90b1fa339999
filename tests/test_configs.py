"""Every config of classification builds, groups its parameters as published and takes a training step.

Those of detection and segmentation: ``test_dense_configs.py``.
"""

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, init_default_scope
from mmpretrain.structures import DataSample

from smmix_mm.registry import MODELS

ROOT = Path(__file__).resolve().parents[1]
METHODS = ('smmix', 'cutmix')
ALL_CONFIGS = sorted((ROOT / 'configs').glob('[!_]*/*.py'))
CONFIGS = [path for path in ALL_CONFIGS if path.parent.name in METHODS]
# The demo's data are not published, its models neither.
PUBLISHED = [path for path in ALL_CONFIGS if 'digit-scenes' not in path.stem]
IMAGENET = [path for path in CONFIGS if path.stem.endswith('in1k')]
# Sizes as published, heads included, the region classifier left out.
PARAMETERS = {
    'deit-tiny': 5_717_416,
    'deit-small': 22_050_664,
    'deit-base': 86_567_656,
    'pvt-tiny': 13_229_288,
    'pvt-small': 24_485_864,
    'pvt-medium': 44_208_104,
    'pvt-large': 61_369_320,
}

every_config = pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
every_imagenet_config = pytest.mark.parametrize('path', IMAGENET, ids=lambda path: path.stem)


def build_model(cfg: Config) -> torch.nn.Module:
    """As mmengine's runner does: a ``data_preprocessor`` of the config goes to a model that has none of its own."""
    settings = dict(cfg.model)
    if 'data_preprocessor' in cfg:
        settings.setdefault('data_preprocessor', dict(cfg.data_preprocessor))
    return MODELS.build(settings)


def count_parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for name, parameter in model.named_parameters() if 'region_head' not in name)


def test_there_is_a_config_for_each_model_and_method():
    models = {*PARAMETERS}
    for method in METHODS:
        assert {path.stem.split('_')[0] for path in IMAGENET if path.parent.name == method} == models


@every_config
def test_one_training_step(path):
    torch.manual_seed(0)
    cfg = Config.fromfile(path)
    model = build_model(cfg).train()
    cfg.optim_wrapper.type = 'OptimWrapper'
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    classes = cfg.model.head.num_classes
    data = dict(
        inputs=torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8),
        data_samples=[DataSample().set_gt_label(label) for label in (1, classes - 1)],
    )
    reported = set()
    # Both methods of the list come up within a few steps.
    for _ in range(4):
        reported |= set(model.train_step(data, wrapper))
    assert reported >= {'loss', 'loss_cls'}
    if path.parent.name == 'smmix':
        assert reported == {'loss', 'loss_cls', 'loss_fine', 'loss_con'}
    for (name, parameter), old in zip(model.named_parameters(), before, strict=True):
        assert parameter.isfinite().all(), name
        assert not parameter.equal(old), f'{name} was not trained'


@every_imagenet_config
def test_parameters_and_their_decay(path):
    """Published: no decay on one-dimensional parameters and class token; DeiT none on position embeddings either."""
    cfg = Config.fromfile(path)
    model = build_model(cfg)
    cfg.optim_wrapper.type = 'OptimWrapper'
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    decay = {
        id(parameter): group['weight_decay']
        for group in wrapper.optimizer.param_groups
        for parameter in group['params']
    }
    is_deit = path.stem.startswith('deit')
    for name, parameter in model.named_parameters():
        exempt = parameter.ndim == 1 or 'cls_token' in name or (is_deit and 'pos_embed' in name)
        assert decay.pop(id(parameter)) == (0.0 if exempt else 0.05), name
    assert not decay
    assert count_parameters(model) == PARAMETERS[path.stem.split('_')[0]]


@every_imagenet_config
def test_recipe(path):
    """The values of the published recipe, read off the merged config."""
    cfg = Config.fromfile(path)
    large = path.stem.split('_')[0] in ('pvt-medium', 'pvt-large')
    assert cfg.train_dataloader.batch_size * 8 == 1024 == cfg.auto_scale_lr.base_batch_size
    assert cfg.train_cfg.max_epochs == 300
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', 1e-3, 0.05)
    assert (optimizer.betas, optimizer.eps) == ((0.9, 0.999), 1e-8)
    assert cfg.optim_wrapper.clip_grad == (dict(max_norm=1.0) if large else None)
    assert cfg.model.backbone.drop_path_rate == (0.3 if large else 0.1)
    assert cfg.model.head.loss.label_smooth_val == 0.1
    assert cfg.model.train_cfg.probs == [0.5, 0.5]
    assert cfg.model.train_cfg.augments[0] == dict(type='mmpretrain.Mixup', alpha=0.8)
    assert [t.erase_prob for t in cfg.train_pipeline if t.type.endswith('RandomErasing')] == [0.0]


def test_methods_differ_in_nothing_else():
    for path in CONFIGS:
        if path.parent.name != 'smmix':
            continue
        smmix = Config.fromfile(path).to_dict()
        cutmix = Config.fromfile(str(path).replace('smmix', 'cutmix').replace('cutmix_mm', 'smmix_mm')).to_dict()
        for cfg in (smmix, cutmix):
            assert cfg['model'].pop('train_cfg') == cfg['mixing']
        assert smmix.pop('mixing') != cutmix.pop('mixing')
        assert smmix == cutmix


def test_learning_rate_follows_the_released_schedule():
    """After the warm-up within a few per cent of timm's schedule, stepped once per epoch and one epoch late."""
    cfg = Config.fromfile(IMAGENET[0])
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1e-3)
    epoch_length = 4
    warm_up, cosine = cfg.param_scheduler
    warm_up_class = PARAM_SCHEDULERS.get(warm_up.pop('type'))
    assert warm_up.pop('convert_to_iter_based')
    warm_up = warm_up_class.build_iter_from_epoch(optimizer=optimizer, epoch_length=epoch_length, **warm_up)
    cosine = PARAM_SCHEDULERS.build(cosine, default_args=dict(optimizer=optimizer))
    rates = []
    for _ in range(300):
        rates.append(optimizer.param_groups[0]['lr'])
        for _ in range(epoch_length):
            optimizer.step()
            warm_up.step()
        cosine.step()
    assert rates[0] == pytest.approx(1e-6)
    assert max(rates) == pytest.approx(1e-3)
    for epoch in range(6, 300):
        released = 1e-5 + (1e-3 - 1e-5) * (1 + math.cos(math.pi * (epoch - 1) / 300)) / 2
        assert rates[epoch] == pytest.approx(released, rel=0.05), epoch


@pytest.mark.parametrize('pipeline', ['train_pipeline', 'test_pipeline'])
def test_imagenet_pipeline_gives_a_224_picture(pipeline, tmp_path):
    path = str(tmp_path / 'image.jpg')
    cv2.imwrite(path, np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8))
    packed = Compose(Config.fromfile(IMAGENET[0])[pipeline])(dict(img_path=path, gt_label=3))
    assert packed['inputs'].shape == (3, 224, 224)
    assert packed['inputs'].dtype == torch.uint8
    assert packed['data_samples'].gt_label.item() == 3


def test_metafiles_list_every_published_config():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    assert {ROOT / metafile for metafile in index['Import']} == {path.parent / 'metafile.yml' for path in ALL_CONFIGS}
    listed = []
    counts = {}
    for metafile in index['Import']:
        content = yaml.safe_load((ROOT / metafile).read_text())
        collections = {collection['Name']: collection for collection in content['Collections']}
        for collection in collections.values():
            assert ROOT / collection['README'] == (ROOT / metafile).parent / 'README.md'
            assert (ROOT / collection['README']).is_file()
        for model in content['Models']:
            path = ROOT / model['Config']
            listed.append(path)
            assert model['Name'] == path.stem
            assert model['In Collection'] in collections
            assert f'({path.name})' in (path.parent / 'README.md').read_text()
            cfg = Config.fromfile(path)
            init_default_scope(cfg.default_scope)
            # Those that differ in their first weights or their schedule alone are built once.
            cfg.model.backbone.pop('init_cfg', None)
            if (key := str(cfg.model)) not in counts:
                counts[key] = count_parameters(build_model(cfg))
            assert model['Metadata']['Parameters'] == counts[key], model['Name']
    assert len(listed) == len(set(listed))
    assert set(PUBLISHED) <= set(listed) <= set(ALL_CONFIGS)
