"""Configs and models by name, from any folder."""

import pytest
import torch
from mmengine.config import Config
from test_configs import ALL_CONFIGS, ROOT

import smmix_mm
from smmix_mm.configs import find_config
from smmix_mm.engine import build_model

VIT = 'smmix/vit-cifar_smmix_1xb100-200e_cifar10'


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_names_are_those_of_one_file_each():
    assert [find_config(path.stem) for path in ALL_CONFIGS] == ALL_CONFIGS


@pytest.mark.parametrize('name', [VIT, f'{VIT}.py', f'smmix_mm::{VIT}.py', 'vit-cifar_smmix_1xb100-200e_cifar10.py'])
def test_ways_to_write_a_name(name):
    assert find_config(name) == ROOT / f'configs/{VIT}.py'


def test_parts_are_found_by_path_alone():
    assert smmix_mm.get_config('_base_/methods/smmix').mixing.augments[-1].type == 'smmix_mm.SMMix'
    with pytest.raises(FileNotFoundError, match=r"no config 'smmix' in .*configs; needed is its path"):
        find_config('smmix')


@pytest.mark.parametrize('name', ['smmix/no_such.py', 'no_such', ''])
def test_unknown_names_are_refused(name):
    with pytest.raises(FileNotFoundError, match=f'no config {name!r}'):
        find_config(name)


@pytest.mark.parametrize(
    'name',
    [
        VIT,
        # They build parts of mmpretrain, mmdet and mmseg by names without a scope.
        'smmix/convnext-cifar_smmix_1xb100-200e_cifar10',
        'mask_rcnn/mask-rcnn_pvt-mini_fpn_1xb8-3e_digit-scenes',
        'sem_fpn/fpn_pvt-mini_1xb8-300_digit-scenes-128x128',
    ],
)
def test_own_configs_inherit(tmp_path, name):
    """They hold the same as the config, so that no part is built in another scope, and their models are the same."""
    own = tmp_path / 'own.py'
    own.write_text(f"_base_ = 'smmix_mm::{name}.py'\nwork_dir = 'elsewhere'\n")
    cfg = Config.fromfile(own)
    assert cfg.to_dict() == {**Config.fromfile(ROOT / f'configs/{name}.py').to_dict(), 'work_dir': 'elsewhere'}
    shapes = [
        {key: value.shape for key, value in model.state_dict().items()}
        for model in (build_model(cfg), smmix_mm.get_model(name))
    ]
    assert shapes[0] == shapes[1] != {}


def test_configs_of_other_packages_still_inherit(tmp_path):
    own = tmp_path / 'own.py'
    own.write_text("_base_ = 'mmpretrain::resnet/resnet18_8xb16_cifar10.py'\n")
    assert Config.fromfile(own).model.backbone.type == 'ResNet_CIFAR'


def test_weights_are_loaded_or_refused():
    model = smmix_mm.get_model(VIT)
    torch.nn.init.ones_(model.head.layers.head.weight)
    torch.save(dict(state_dict=model.state_dict()), 'whole.pth')
    # The stock classifier has no region classifier.
    weights = {key: value for key, value in model.state_dict().items() if not key.startswith('region_head')}
    assert len(weights) < len(model.state_dict())
    loaded = smmix_mm.get_model(VIT, 'whole.pth').state_dict()
    assert all(loaded[key].equal(value) for key, value in weights.items())
    torch.save(dict(state_dict=weights), 'stock.pth')
    assert smmix_mm.get_model(VIT, 'stock.pth').head.layers.head.weight.eq(1).all()
    with pytest.raises(ValueError, match=r'whole\.pth does not fit'):
        smmix_mm.get_model('smmix/pvt-cifar_smmix_1xb100-200e_cifar10', 'whole.pth')
    with pytest.raises(FileNotFoundError, match=r'no_such\.pth'):
        smmix_mm.get_model(VIT, 'no_such.pth')


def test_settings_override_the_config():
    model = smmix_mm.get_model(
        VIT, data_preprocessor=dict(type='mmpretrain.ClsDataPreprocessor', mean=[3.0] * 3, std=[1.0] * 3)
    )
    assert model.data_preprocessor.mean.flatten().tolist() == [3, 3, 3]
