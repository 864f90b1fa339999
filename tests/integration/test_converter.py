"""Checkpoints in the authors' layouts become ours, complete."""

import json
import re
import runpy
import sys
from collections import OrderedDict
from pathlib import Path

import processes
import pytest
import torch
from mmpretrain.models import build_classifier

from smmix_mm.checkpoint import read_weights
from smmix_mm.models import PVT, CaiT

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / 'tools/model_converters/official_to_smmix_mm.py'
LAYOUTS = json.loads((ROOT / 'tests/data/checkpoint_layouts.json').read_text())


@pytest.fixture
def convert(monkeypatch, tmp_path):
    """Runs the tool on official.pth in this process, where torch is loaded already."""

    def run():
        monkeypatch.syspath_prepend(TOOL.parent)
        monkeypatch.setattr(sys, 'argv', [str(TOOL), str(tmp_path / 'official.pth'), str(tmp_path / 'ours.pth')])
        runpy.run_path(str(TOOL), run_name='__main__')

    return run


def test_converter_is_a_program(tmp_path):
    torch.save({'weight': torch.zeros(1)}, tmp_path / 'official.pth')
    done = processes.run(
        'model_converters/official_to_smmix_mm.py', tmp_path / 'official.pth', tmp_path / 'ours.pth', check=False
    )
    assert done.returncode == 1
    assert f'{tmp_path}/official.pth: unknown layout' in done.stderr


@pytest.mark.parametrize(
    ('name', 'wrapper'),
    [
        *((name, 'model') for name in ('pvt_tiny', 'smmix_pvt_tiny', 'cait_xxs24', 'deit_tiny', 'smmix_deit_tiny')),
        ('pvt_tiny', None),
    ],
)
def test_converter_places_every_tensor(tmp_path, capsys, convert, name, wrapper):
    torch.manual_seed(0)
    layout = LAYOUTS[name]
    official = OrderedDict((key, torch.randn(shape)) for key, shape in dict(layout).items())
    torch.save({wrapper: official} if wrapper else official, tmp_path / 'official.pth')
    convert()
    assert len([line for line in capsys.readouterr().out.splitlines() if ' -> ' in line]) == len(official)
    ours = read_weights(tmp_path / 'ours.pth')
    model = build_classifier(dict(type='smmix_mm.MixingClassifier', **parts(name)))
    assert not model.load_state_dict(ours, strict=True).missing_keys
    # Each tensor once, none changed.
    assert sorted(float(value.sum()) for value in ours.values()) == sorted(
        float(value.sum()) for value in official.values()
    )


def parts(name: str) -> dict:
    method = [dict(type='smmix_mm.SMMix')] if name.startswith('smmix') else []
    if 'pvt' in name:
        backbone = dict(type='smmix_mm.PVT', arch='tiny')
        head = dict(type='LinearClsHead', num_classes=1000, in_channels=512)
    elif 'cait' in name:
        backbone = dict(type='smmix_mm.CaiT', arch='xxs24')
        head = dict(type='LinearClsHead', num_classes=1000, in_channels=192)
    else:
        backbone = dict(type='VisionTransformer', arch='deit-tiny', img_size=224, patch_size=16)
        head = dict(type='VisionTransformerClsHead', num_classes=1000, in_channels=192)
    return dict(backbone=backbone, head=head, train_cfg=dict(augments=method))


def test_converted_pvt_computes_what_its_weights_say(tmp_path, convert):
    """Official names are our backbone's own: the feature of the converted file equals that of direct loading."""
    torch.manual_seed(0)
    backbone = PVT('tiny').eval()
    backbone.init_weights()
    official = OrderedDict(backbone.state_dict())
    torch.save({'model': official}, tmp_path / 'official.pth')
    convert()
    other = PVT('tiny').eval()
    ours = read_weights(tmp_path / 'ours.pth')
    other.load_state_dict({key.removeprefix('backbone.'): value for key, value in ours.items()})
    images = torch.randn(1, 3, 224, 224)
    assert other(images)[0].equal(backbone(images)[0])


@pytest.mark.parametrize('module', ['', 'module.'])
def test_official_cait_of_other_settings_is_converted_too(tmp_path, convert, module):
    """As the authors' files have it, below `model` and `module.`; heads, depths and size are told from the shapes."""
    torch.manual_seed(0)
    arch = dict(embed_dims=12, depth=2, num_heads=3, mlp_ratio=2, class_depth=1)
    settings = dict(img_size=24, patch_size=4, in_channels=1, qkv_bias=False)
    backbone = CaiT(arch, **settings)
    torch.nn.init.normal_(backbone.pos_embed)
    official = {f'{module}{key}': value for key, value in backbone.state_dict().items()}
    torch.save({'model': official}, tmp_path / 'official.pth')
    convert()
    ours = {key.removeprefix('backbone.'): value for key, value in read_weights(tmp_path / 'ours.pth').items()}
    other = CaiT(arch, **settings)
    other.load_state_dict(ours)
    images = torch.randn(1, 1, 24, 24)
    assert other(images)[0].equal(backbone(images)[0])


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda w: w.pop('block3.1.mlp.fc2.bias'), 'block3.1.mlp.fc2.bias'),
        (
            lambda w: w.update({'surprise.weight': torch.zeros(1)}),
            'keys are not part of the layout PVT: surprise.weight',
        ),
        (lambda w: w.update({'block2.0.attn.q.bias': torch.zeros(3)}), 'size mismatch for block2.0.attn.q.bias'),
        (lambda w: w.pop('head.bias'), 'weight or bias of head of PVT is missing'),
        (lambda w: [w.pop(key) for key in list(w) if key.startswith('patch_embed1')], 'unknown layout'),
    ],
    ids=['missing', 'unexpected', 'shape', 'half a head', 'layout'],
)
def test_converter_refuses_what_does_not_fit_pvt(tmp_path, convert, change, message):
    official = OrderedDict((key, torch.zeros(shape)) for key, shape in dict(LAYOUTS['pvt_tiny']).items())
    change(official)
    torch.save(official, tmp_path / 'official.pth')
    with pytest.raises(SystemExit, match=re.escape(message)):
        convert()
    assert not (tmp_path / 'ours.pth').exists()


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda w: w.pop('blocks_token_only.1.gamma_1'), 'blocks_token_only.1.gamma_1'),
        (lambda w: w.pop('blocks.0.attn.proj_l.weight'), 'blocks.0.attn.proj_l.weight of CaiT is missing'),
        (
            lambda w: w.update({'token_head.weight': torch.zeros(1)}),
            'keys are not part of the layout CaiT: token_head.weight',
        ),
        (lambda w: w.update({'blocks.3.gamma_2': torch.zeros(3)}), 'size mismatch for blocks.3.gamma_2'),
        (lambda w: w.pop('head.weight'), 'weight or bias of head of CaiT is missing'),
    ],
    ids=['missing', 'shapes missing', 'unexpected', 'shape', 'half a head'],
)
def test_converter_refuses_what_does_not_fit_cait(tmp_path, convert, change, message):
    official = OrderedDict((key, torch.zeros(shape)) for key, shape in dict(LAYOUTS['cait_xxs24']).items())
    change(official)
    torch.save(official, tmp_path / 'official.pth')
    with pytest.raises(SystemExit, match=re.escape(message)):
        convert()
    assert not (tmp_path / 'ours.pth').exists()
