"""Checkpoints in the authors' layouts become ours, complete."""

import json
import re
import runpy
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from mmpretrain.models import build_classifier

from smmix_mm.engine import read_weights
from smmix_mm.models import PVT

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / 'tools/model_converters/official_to_smmix_mm.py'
LAYOUTS = json.loads((ROOT / 'tests/data/checkpoint_layouts.json').read_text())


@pytest.fixture
def convert(monkeypatch, tmp_path):
    """Runs the tool on official.pth in this process, where torch is loaded already."""

    def run():
        monkeypatch.setattr(sys, 'argv', [str(TOOL), str(tmp_path / 'official.pth'), str(tmp_path / 'ours.pth')])
        runpy.run_path(str(TOOL), run_name='__main__')

    return run


def test_converter_is_a_program(tmp_path):
    torch.save({'weight': torch.zeros(1)}, tmp_path / 'official.pth')
    done = subprocess.run(
        [sys.executable, TOOL, tmp_path / 'official.pth', tmp_path / 'ours.pth'], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert f'{tmp_path}/official.pth: unknown layout' in done.stderr


@pytest.mark.parametrize('name', ['pvt_tiny', 'smmix_pvt_tiny', 'deit_tiny', 'smmix_deit_tiny'])
@pytest.mark.parametrize('wrapper', ['model', None])
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


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda w: w.pop('block3.1.mlp.fc2.bias'), 'block3.1.mlp.fc2.bias'),
        (lambda w: w.update({'surprise.weight': torch.zeros(1)}), 'keys have no place in PVT: surprise.weight'),
        (lambda w: w.update({'block2.0.attn.q.bias': torch.zeros(3)}), 'size mismatch for block2.0.attn.q.bias'),
        (lambda w: w.pop('head.bias'), 'weight or bias of head of PVT is missing'),
        (lambda w: [w.pop(key) for key in list(w) if key.startswith('patch_embed1')], 'unknown layout'),
    ],
    ids=['missing', 'unexpected', 'shape', 'half a head', 'layout'],
)
def test_converter_refuses(tmp_path, convert, change, message):
    official = OrderedDict((key, torch.zeros(shape)) for key, shape in dict(LAYOUTS['pvt_tiny']).items())
    change(official)
    torch.save(official, tmp_path / 'official.pth')
    with pytest.raises(SystemExit, match=re.escape(message)):
        convert()
    assert not (tmp_path / 'ours.pth').exists()
