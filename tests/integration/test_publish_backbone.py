"""Backbones stripped of all else, in our naming and in those of stock mmdet and mmseg."""

import hashlib
import json
import logging
import re
import runpy
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from conftest import randomize
from mmdet.models.backbones.pvt import PyramidVisionTransformer, pvt_convert
from mmdet.registry import MODELS as DETECTORS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.models.backbones import VisionTransformer
from mmseg.registry import MODELS as SEGMENTORS
from processes import run
from torch import nn

from smmix_mm.checkpoint import read_weights
from smmix_mm.models import PVT
from smmix_mm.models.pretrained import load_backbone
from smmix_mm.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / 'tools/model_converters/publish_backbone.py'
# Tiny ones of the families that `make_backbone` does not make.
OTHERS = {
    'resnet': dict(type='mmpretrain.ResNet', depth=50, stem_channels=8, base_channels=4),
    'resnet-cifar': dict(type='mmpretrain.ResNet_CIFAR', depth=18, stem_channels=8, base_channels=4),
    'convnext': dict(type='mmpretrain.ConvNeXt', arch=dict(depths=[1, 1, 2, 1], channels=[8, 8, 16, 32])),
}
# Norms that a classifier does not have, but a backbone with the maps of all stages.
NORMS = dict(swin=['norm0'], convnext=['norm0', 'norm1', 'norm2'])
HEADS = dict(pvt=[1, 2, 3, 4], vit=2)
LAYOUTS = json.loads((ROOT / 'tests/data/checkpoint_layouts.json').read_text())


@pytest.fixture
def publish(monkeypatch, tmp_path, capsys):
    """Runs the tool on source.pth in this process, where torch is loaded already; gives the new file and the output."""

    # mmengine's logger may write to what an earlier test captured, which is closed.
    monkeypatch.setattr(logging, 'raiseExceptions', False)

    def run(*options):
        monkeypatch.setattr(
            sys, 'argv', [str(TOOL), str(tmp_path / 'source.pth'), str(tmp_path / 'out/pvt.pth'), *options]
        )
        # As Python does for a program.
        monkeypatch.syspath_prepend(TOOL.parent)
        runpy.run_path(str(TOOL), run_name='__main__')
        printed = capsys.readouterr().out
        return Path(re.search(r'written to (.+)', printed)[1]), printed

    return run


def fabricate(layout):
    torch.manual_seed(0)
    return OrderedDict((name, torch.randn(shape)) for name, shape in dict(LAYOUTS[layout]).items())


def build_stock(path, **settings):
    """As a config builds it, with nothing but its defaults and the size of the model."""
    init_default_scope('mmdet')
    cfg = dict(
        type='PyramidVisionTransformer', num_layers=[2, 2, 2, 2], init_cfg=dict(type='Pretrained', checkpoint=path)
    )
    model = DETECTORS.build(Config(dict(model=cfg | settings)).model)
    model.init_weights()
    return model.eval()


def difference(maps, others):
    """The largest, relative to the largest value of its map."""
    pairs = list(zip(maps, others, strict=True))
    assert len(pairs) == 4
    return max(float((one - other).abs().max() / other.abs().max()) for one, other in pairs)


def test_publisher_is_a_program(tmp_path):
    torch.save({'weight': torch.zeros(1)}, tmp_path / 'source.pth')
    done = run('model_converters/publish_backbone.py', tmp_path / 'source.pth', tmp_path / 'pvt.pth', check=False)
    assert done.returncode == 1
    assert f'{tmp_path}/source.pth has no backbone with parts backbone; it has weight' in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ['source.pth']


@pytest.mark.parametrize('wrapper', [None, 'model', 'state_dict'])
@pytest.mark.parametrize('layout', ['pvt_tiny', 'smmix_pvt_tiny'])
def test_our_naming_keeps_the_backbone_and_drops_the_classifiers(tmp_path, publish, layout, wrapper):
    weights = fabricate(layout)
    torch.save({wrapper: weights, 'epoch': 1} if wrapper else weights, tmp_path / 'source.pth')
    path, printed = publish()
    assert path.parent == tmp_path / 'out'
    assert path.name == f'pvt-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.pth'
    published = read_weights(path)
    assert list(published) == [name for name in weights if 'head' not in name]
    assert all(value.equal(weights[name]) for name, value in published.items())
    fates = printed.splitlines()
    for name, value in weights.items():
        fate = f'-> {name} {tuple(value.shape)}' if name in published else 'left out'
        assert f'{name} {tuple(value.shape)} {fate}' in fates
    assert f'159 tensors from {len(weights)} of {tmp_path}/source.pth written to {path}' in fates
    for out_type in ('cls_token', 'featmap'):
        load_backbone(PVT('tiny', out_type=out_type), path)


def test_training_checkpoints_are_published_the_same_every_time(tmp_path, publish, make_classifier, make_backbone):
    """Whatever else the file holds, and below whatever prefix."""
    model = make_classifier('pvt')
    state = model.state_dict()
    torch.save(dict(meta=dict(epoch=1), state_dict=state, optimizer=dict(lr=1.0)), tmp_path / 'source.pth')
    path, printed = publish()
    assert 'region_head.weight (5, 32) left out' in printed
    assert 'backbone.cls_token (1, 1, 32) -> cls_token (1, 1, 32)' in printed
    torch.save(torch.nn.ModuleDict(dict(module=model)).state_dict(), tmp_path / 'source.pth')
    before = path.read_bytes()
    assert publish()[0] == path
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
    backbone = make_backbone('pvt')
    load_backbone(backbone, path)
    assert all(value.equal(state[f'backbone.{name}']) for name, value in backbone.state_dict().items())


@pytest.mark.parametrize('published', ['smmix_mm', 'mmdet'])
def test_detectors_backbones_are_published_from_below_a_prefix(tmp_path, publish, make_backbone, published):
    """Without class token and norm, which they do not have."""
    weights = make_backbone('pvt', out_type='featmap').state_dict()
    state = {f'backbone.{name}': value for name, value in weights.items()} | {'neck.weight': torch.zeros(1)}
    torch.save(dict(state_dict=state), tmp_path / 'source.pth')
    with pytest.raises(SystemExit, match=r"belong neither.*neck\.weight; use prefix='backbone\.'"):
        publish('--naming', published)
    path, printed = publish('--naming', published, '--prefix', 'backbone')
    assert 'neck.weight (1,) left out' in printed
    assert len(read_weights(path)) == {'smmix_mm': 120, 'mmdet': 108}[published]
    if published == 'smmix_mm':
        load_backbone(make_backbone('pvt', out_type='featmap'), path)
    else:
        assert read_weights(path)['layers.3.1.0.pos_embed'].equal(weights['pos_embed4'])


def test_other_backbones_of_classifiers_are_published_too(tmp_path, publish, make_classifier, vit_arch):
    """Such as mmpretrain's ViT, which then loads it."""
    state = make_classifier('vit').state_dict()
    torch.save(dict(state_dict=state), tmp_path / 'source.pth')
    path, _ = publish()
    published = read_weights(path)
    backbone = VisionTransformer(
        vit_arch, img_size=32, patch_size=8, init_cfg=dict(type='Pretrained', checkpoint=str(path))
    )
    backbone.init_weights()
    assert set(published) == set(backbone.state_dict())
    assert all(value.equal(state[f'backbone.{name}']) for name, value in backbone.state_dict().items())


@pytest.mark.parametrize('layout', ['pvt_tiny', 'smmix_pvt_tiny'])
def test_naming_of_mmdet_is_what_its_own_converter_makes_of_official_weights(tmp_path, publish, layout):
    weights = fabricate(layout)
    torch.save(dict(model=weights), tmp_path / 'source.pth')
    path, printed = publish('--naming', 'mmdet')
    published = read_weights(path)
    expected = pvt_convert({name: value for name, value in weights.items() if not name.startswith('token_head')})
    assert set(published) == set(expected)
    assert all(value.equal(expected[name]) for name, value in published.items())
    # And leaves alone what is converted already.
    assert pvt_convert(published) == published
    for fate in (
        'cls_token (1, 1, 512) left out',
        'norm.weight (512,) left out',
        'pos_embed4 (1, 50, 512) -> layers.3.1.0.pos_embed (1, 49, 512)',
        'block2.1.attn.kv.weight (256, 128) -> layers.1.1.2.attn.attn.in_proj_weight (384, 128)',
        f'140 tensors from {len(weights)} of {tmp_path}/source.pth written to {path}',
    ):
        assert fate in printed.splitlines()
    assert 'pretrain_img_size=224, num_layers=[2, 2, 2, 2]' in printed


@pytest.mark.parametrize('naming', ['mmdet', 'smmix_mm'])
@torch.no_grad()
def test_stock_mmdet_computes_the_same_feature_maps(tmp_path, publish, naming):
    """At 224 pixels and at others, from a plain init_cfg; its converter takes our naming too.

    The rest is its LayerNorm eps: with the official one put in, both agree to the last digits of float64, with weights
    far from the initial ones too.
    """
    torch.manual_seed(0)
    source = PVT('tiny')
    source.init_weights()
    torch.save(dict(state_dict=source.state_dict()), tmp_path / 'source.pth')
    path, _ = publish('--naming', naming)
    stock = build_stock(str(path))
    dense = PVT('tiny', out_type='featmap', init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'source.pth')))
    dense.init_weights()
    dense.eval()
    sizes = ((224, 224), (192, 320), (200, 333))
    for size in sizes:
        images = torch.randn(1, 3, *size)
        assert 1e-7 < difference(stock(images), dense(images)) < 1e-3

    for parameter in source.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.1)
    torch.save(dict(state_dict=source.state_dict()), tmp_path / 'source.pth')
    stock = build_stock(str(publish('--naming', naming)[0])).double()
    dense.load_state_dict(source.state_dict())
    for name, module in stock.named_modules():
        if isinstance(module, nn.LayerNorm) and re.fullmatch(r'layers\.\d\.0\.norm|.*\.attn\.norm', name):
            module.eps = 1e-5
    for size in sizes:
        images = torch.randn(1, 3, *size).double()
        # mmpretrain interpolates position embeddings in float32.
        assert difference(stock(images), dense.double()(images)) < (1e-9 if size == (224, 224) else 1e-5)


@pytest.mark.parametrize('convert_weights', [True, False])
def test_naming_of_mmdet_loads_whole_whether_stock_mmdet_converts_or_not(
    tmp_path, publish, make_backbone, pvt_arch, convert_weights
):
    """A small one, of another input size and other strides."""
    torch.save(make_backbone('pvt', (48, 48)).state_dict(), tmp_path / 'source.pth')
    path, printed = publish('--naming', 'mmdet')
    assert 'pretrain_img_size=48, num_layers=[1, 2, 1, 2], patch_sizes=[4, 2, 1, 1]' in printed
    stock = build_stock(
        str(path),
        convert_weights=convert_weights,
        pretrain_img_size=48,
        embed_dims=8,
        num_layers=pvt_arch['depths'],
        num_heads=pvt_arch['num_heads'],
        patch_sizes=pvt_arch['strides'],
        strides=pvt_arch['strides'],
        sr_ratios=pvt_arch['sr_ratios'],
        mlp_ratios=pvt_arch['mlp_ratios'],
    )
    assert type(stock) is PyramidVisionTransformer
    published = read_weights(path)
    assert set(stock.state_dict()) == set(published)
    assert all(value.equal(published[name]) for name, value in stock.state_dict().items())


def test_backbones_of_images_that_are_not_square_are_published(tmp_path, publish, make_backbone):
    weights = make_backbone('pvt', (32, 64)).state_dict()
    torch.save(weights, tmp_path / 'source.pth')
    assert all(value.equal(weights[name]) for name, value in read_weights(publish()[0]).items())
    path, printed = publish('--naming', 'mmdet')
    assert 'pretrain_img_size=(height, width)' in printed
    assert read_weights(path)['layers.3.1.0.pos_embed'].equal(weights['pos_embed4'][:, 1:])


def test_every_missing_tensor_is_named(tmp_path, publish, make_backbone):
    """One of each kind, whichever the stage and block."""
    weights = make_backbone(
        'pvt', arch=dict(PVT.arch_zoo['tiny'], embed_dims=[8, 16, 40, 64]), img_size=32
    ).state_dict()
    kinds = {re.sub(r'\d+', '', name): name for name in weights}
    for name in kinds.values():
        torch.save({key: value for key, value in weights.items() if key != name}, tmp_path / 'source.pth')
        with pytest.raises(
            SystemExit, match=rf'source\.pth does not hold a complete PVT:\s{re.escape(name)} (of PVT )?is missing'
        ):
            publish()
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    ('change', 'options', 'message'),
    [
        (lambda w: w.update({'surprise.weight': torch.zeros(1)}), (), 'surprise.weight is unexpected'),
        (
            lambda w: w.update({'block2.0.attn.q.bias': torch.zeros(3)}),
            ('--naming', 'mmdet'),
            'block2.0.attn.q.bias needs the shape (128,), but has (3,)',
        ),
        (lambda w: w.update(pos_embed2=torch.zeros(1, 49, 128)), (), 'pos_embed2 needs the shape (1, 784, 128)'),
        (
            lambda w: w.update({'patch_embed2.proj.weight': torch.zeros(3)}),
            (),
            'patch_embed2.proj.weight of PVT needs 4 dimensions, but has the shape (3,)',
        ),
        (
            lambda w: [w.pop(name) for name in list(w) if name.endswith(('.q.bias', '.kv.bias'))],
            ('--naming', 'mmdet'),
            'a PVT with qkv_bias=False does not fit stock mmdet',
        ),
        (
            lambda w: w.update({f'teacher.{name}': value for name, value in w.items()}),
            (),
            'source.pth has 2 backbones',
        ),
        (lambda _: None, ('--prefix', 'backbone'), "source.pth has no tensors with prefix='backbone'"),
    ],
    ids=['unexpected', 'shape', 'grid', 'dimensions', 'bias', 'two', 'prefix'],
)
def test_publisher_refuses(tmp_path, publish, change, options, message):
    weights = OrderedDict((name, torch.zeros(shape)) for name, shape in dict(LAYOUTS['pvt_tiny']).items())
    change(weights)
    torch.save(weights, tmp_path / 'source.pth')
    with pytest.raises(SystemExit, match=re.escape(message)):
        publish(*options)
    assert not (tmp_path / 'out').exists()


@pytest.fixture
def save_classifier(tmp_path, make_backbone):
    """Saves a classifier with a tiny backbone of a family as source.pth, and returns the backbone."""

    def save(family, **settings):
        torch.manual_seed(0)
        if family in OTHERS:
            backbone = randomize(MODELS.build(dict(OTHERS[family], **settings)))
        else:
            backbone = make_backbone(family, **settings)
        for name, buffer in backbone.named_buffers():
            # Statistics of a BatchNorm that has seen something.
            if 'running' in name:
                buffer.add_(torch.rand_like(buffer))
        state = {f'backbone.{name}': value for name, value in backbone.state_dict().items()}
        beside = {'head.fc.weight': torch.zeros(5, 32), 'region_head.weight': torch.zeros(5, 32)}
        torch.save(dict(state_dict=state | beside), tmp_path / 'source.pth')
        return backbone

    return save


def build_printed(printed, path, family):
    """Builds the backbone of the printed config, which loads the file strictly, apart from some norms."""
    norms = NORMS.get(family, ())
    line = next(line for line in printed.splitlines() if line.startswith('for '))
    # What the tensors do not tell.
    cfg = eval(line.removeprefix('for '), dict(height=32, width=32, num_heads=HEADS.get(family)))
    library = cfg['type'].partition('.')[0]
    registry = dict(mmdet=DETECTORS, mmseg=SEGMENTORS).get(library, MODELS)
    init_default_scope(library)
    model = registry.build(Config(dict(model=dict(cfg, init_cfg=dict(type='Pretrained', checkpoint=str(path))))).model)
    model.init_weights()
    # mmdet's Swin takes off this prefix.
    expected = {name.removeprefix('backbone.'): value for name, value in read_weights(path).items()}
    loaded = model.state_dict()
    assert set(loaded) - set(expected) == {f'{norm}.{kind}' for norm in norms for kind in ('weight', 'bias')}
    if cfg['type'] == 'smmix_mm.PVT':
        # Its maps need no class token.
        for name in ('cls_token', 'norm.weight', 'norm.bias'):
            del expected[name]
        expected['pos_embed4'] = expected['pos_embed4'][:, 1:]
    if cfg['type'] == 'smmix_mm.CaiT':
        parts = ('cls_token', 'blocks_token_only', 'norm')
        expected = {name: value for name, value in expected.items() if name.partition('.')[0] not in parts}
    assert all(loaded[name].equal(value) for name, value in expected.items())
    assert all(norm in printed for norm in norms)
    assert ('start fresh' in printed) == bool(norms)
    # mmpretrain's eval() returns nothing.
    model.eval()
    return model


@pytest.mark.parametrize('family', ['pvt', 'cait', 'vit', 'swin', 'resnet', 'resnet-cifar', 'convnext'])
def test_our_naming_serves_every_family(publish, save_classifier, family):
    backbone = save_classifier(family)
    path, printed = publish()
    published = read_weights(path)
    assert list(published) == list(backbone.state_dict())
    assert all(value.equal(published[name]) for name, value in backbone.state_dict().items())
    assert 'region_head.weight (5, 32) left out' in printed
    dense = build_printed(printed, path, family)
    assert type(dense) is type(backbone)
    with torch.no_grad():
        maps = dense(torch.randn(1, 3, 64, 96))
    assert len(maps) == dict(vit=1, swin=2, cait=3).get(family, 4)
    assert all(3 * each.shape[2] == 2 * each.shape[3] for each in maps)


@pytest.mark.parametrize(
    ('family', 'naming', 'kind'),
    [
        ('pvt', 'mmdet', 'PyramidVisionTransformer'),
        ('vit', 'mmseg', 'VisionTransformer'),
        ('swin', 'mmdet', 'SwinTransformer'),
        ('swin', 'mmseg', 'SwinTransformer'),
        ('resnet', 'mmdet', 'ResNet'),
        ('resnet', 'mmseg', 'ResNet'),
    ],
)
@torch.no_grad()
def test_stock_classes_compute_the_same_feature_maps(publish, save_classifier, family, naming, kind):
    """Built from the printed config. The norms that a classifier does not have are set to the same values."""
    save_classifier(family)
    path, printed = publish()
    dense = build_printed(printed, path, family)
    path, printed = publish('--naming', naming)
    assert f"for dict(type='{naming}.{kind}', " in printed
    stock = build_printed(printed, path, family)
    assert type(stock).__module__.startswith(f'{naming}.')
    for norm in NORMS.get(family, ()):
        randomize(getattr(dense, norm))
        getattr(stock, norm).load_state_dict(getattr(dense, norm).state_dict())
    # Stock mmdet's LayerNorms of a PVT have another eps, see above. mmpretrain's Swin equals the stock ones only with
    # pad_small_map=True, which the printed config sets.
    tolerance = 1e-3 if family == 'pvt' else 1e-5
    for size in ((32, 32), (64, 96), (44, 60)):
        images = torch.randn(2, 3, *size)
        for one, other in zip(stock(images), dense(images), strict=True):
            torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * float(other.abs().max()))


@pytest.mark.parametrize('family', ['cait', 'vit', 'swin', 'resnet', 'convnext'])
def test_missing_tensors_are_named_in_every_family(tmp_path, publish, save_classifier, family):
    """The first, one in the middle and the last; PVT's are above. One that is left over is named too."""
    backbone = save_classifier(family)
    weights = backbone.state_dict()
    names, kind = list(weights), type(backbone).__name__
    for name in (names[0], names[len(names) // 2], names[-1]):
        torch.save({key: value for key, value in weights.items() if key != name}, tmp_path / 'source.pth')
        with pytest.raises(
            SystemExit,
            match=rf'source\.pth does not hold a complete {kind}:\s{re.escape(name)} (of {kind} )?is missing',
        ):
            publish()
    torch.save({**weights, 'surprise.weight': torch.zeros(1)}, tmp_path / 'source.pth')
    with pytest.raises(SystemExit, match=rf'complete {kind}:\ssurprise\.weight is unexpected'):
        publish()
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    ('family', 'naming', 'instead'),
    [
        ('pvt', 'mmseg', 'use naming smmix_mm, which smmix_mm.PVT loads in configs of mmseg'),
        ('cait', 'mmdet', 'use naming smmix_mm, which smmix_mm.CaiT loads in configs of mmdet'),
        ('cait', 'mmseg', 'use naming smmix_mm, which smmix_mm.CaiT loads in configs of mmseg'),
        ('vit', 'mmdet', 'use naming smmix_mm, which mmpretrain.VisionTransformer loads in configs of mmdet'),
        ('convnext', 'mmdet', 'use naming smmix_mm, which mmpretrain.ConvNeXt loads in configs of mmdet'),
        ('convnext', 'mmseg', 'use naming smmix_mm, which mmpretrain.ConvNeXt loads in configs of mmseg'),
    ],
)
def test_families_without_a_stock_class_are_refused(tmp_path, publish, save_classifier, family, naming, instead):
    name = type(save_classifier(family)).__name__
    with pytest.raises(
        SystemExit, match=f'of the family {name}, for which naming {naming} has no stock class: {instead}'
    ):
        publish('--naming', naming)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    ('family', 'naming', 'settings', 'message'),
    [
        ('vit', 'mmseg', dict(qkv_bias=False), 'a VisionTransformer with qkv_bias=False does not fit stock mmseg'),
        ('vit', 'mmseg', dict(with_cls_token=False, out_type='featmap'), 'a VisionTransformer without class token'),
        ('swin', 'mmdet', dict(use_abs_pos_embed=True), 'a SwinTransformer with use_abs_pos_embed=True does not fit'),
        ('resnet-cifar', 'mmdet', {}, 'a ResNet_CIFAR does not fit the stock ResNet'),
    ],
)
def test_backbones_that_the_stock_class_cannot_hold_are_refused(
    tmp_path, publish, save_classifier, family, naming, settings, message
):
    save_classifier(family, **settings)
    with pytest.raises(SystemExit, match=re.escape(message)):
        publish('--naming', naming)
    assert not (tmp_path / 'out').exists()
    publish()


def test_backbones_of_other_classes_are_copied_whatever_names_they_share(tmp_path, publish, make_backbone):
    """Here one with BEiT's layer scale. Only our naming serves them."""
    weights = {f'backbone.{name}': value for name, value in make_backbone('vit').state_dict().items()}
    weights |= {f'backbone.layers.{layer}.gamma_1': torch.ones(32) for layer in range(3)}
    torch.save(weights, tmp_path / 'source.pth')
    path, printed = publish()
    assert {f'backbone.{name}' for name in read_weights(path)} == set(weights)
    assert 'for dict' not in printed
    with pytest.raises(
        SystemExit, match=r'mmdet serves the families PVT, SwinTransformer, ResNet, but .*source\.pth has none of them'
    ):
        publish('--naming', 'mmdet')


def test_several_families_in_one_file_are_told_apart_by_a_prefix(tmp_path, publish, make_backbone):
    states = {family: make_backbone(family).state_dict() for family in ('vit', 'swin')}
    weights = {f'{family}.{name}': value for family, state in states.items() for name, value in state.items()}
    torch.save(weights, tmp_path / 'source.pth')
    with pytest.raises(SystemExit, match='several families, VisionTransformer, SwinTransformer: set prefix'):
        publish()
    assert set(read_weights(publish('--prefix', 'swin')[0])) == set(states['swin'])


def test_missing_files_are_named(publish):
    with pytest.raises(SystemExit, match=r'there is no checkpoint .*source\.pth'):
        publish()
