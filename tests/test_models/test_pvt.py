import copy
import json
import pickle
from pathlib import Path

import pytest
import reference
import torch
import torch.nn.functional as F
from marks import needs_one_dnn
from mmdet.registry import MODELS as DETECTORS
from mmengine.logging import MMLogger
from mmengine.model import BaseModule
from mmengine.registry import DefaultScope, init_default_scope
from mmpretrain.models.heads import LinearClsHead
from mmseg.registry import MODELS as SEGMENTORS
from torch import nn

from smmix_mm.models import PVT
from smmix_mm.models.backbones import pvt
from smmix_mm.models.backbones.pvt_layout import settings_of
from smmix_mm.registry import MODELS

LAYOUTS = json.loads((Path(__file__).parents[1] / 'data' / 'checkpoint_layouts.json').read_text())

# Of the tiny backbone at 32 x 32.
GRIDS = [(8, 8), (4, 4), (4, 4), (4, 4)]


def plain(backbone, arch, images, grids=GRIDS):
    parameters = {name: value.detach().double() for name, value in backbone.state_dict().items()}
    return reference.pvt(parameters, arch, grids, images.double(), cls_token=backbone.out_type == 'cls_token')


@pytest.mark.parametrize(
    ('arch', 'count'), [('tiny', 13229288), ('small', 24485864), ('medium', 44208104), ('large', 61369320)]
)
def test_parameter_counts_are_the_published_ones(arch, count):
    """With a classifier of 1000 classes."""
    backbone = PVT(arch)
    assert sum(p.numel() for p in [*backbone.parameters(), *LinearClsHead(1000, 512).parameters()]) == count


@pytest.mark.parametrize('layout', ['pvt_tiny', 'smmix_pvt_tiny'])
def test_names_and_shapes_are_the_published_ones(layout):
    """Of what is not a classifier."""
    classifiers = ('head.', 'token_head.')
    published = {name: shape for name, shape in LAYOUTS[layout].items() if not name.startswith(classifiers)}
    found = {name: list(value.shape) for name, value in PVT('tiny').state_dict().items()}
    assert found == published


@pytest.mark.parametrize('scope', ['mmpretrain', 'mmdet', 'mmseg'])
def test_all_three_libraries_build_it(scope, pvt_arch):
    with DefaultScope.overwrite_default_scope(scope):
        backbone = MODELS.build(dict(type='smmix_mm.PVT', arch=pvt_arch, img_size=32, out_type='featmap'))
    assert type(backbone) is PVT


@pytest.mark.parametrize('out_type', ['cls_token', 'featmap'])
@torch.no_grad()
def test_forward_equals_a_plain_pvt(make_backbone, pvt_arch, out_type):
    """Explicit softmax, patches cut out one by one, in float64."""
    backbone = make_backbone('pvt', out_type=out_type).double()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    maps, tokens, _ = plain(backbone, pvt_arch, images)
    expected = (tokens[:, 0],) if out_type == 'cls_token' else maps
    for one, other in zip(backbone(images), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_published_size_equals_a_plain_pvt():
    """PVT-Tiny at 224, as published weights run in it."""
    backbone = PVT('tiny')
    backbone.init_weights()
    images = torch.randn(1, 3, 224, 224)
    grids = [(56, 56), (28, 28), (14, 14), (7, 7)]
    _, tokens, _ = plain(backbone, PVT.arch_zoo['tiny'], images, grids)
    torch.testing.assert_close(backbone(images)[0].double(), tokens[:, 0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('out_type', ['cls_token', 'featmap'])
@pytest.mark.parametrize('size', [(48, 64), (64, 24), (35, 50)])
@torch.no_grad()
def test_other_sizes_interpolate_the_position_embeddings(make_backbone, pvt_arch, out_type, size):
    """Bilinearly, every stage's own; the class token keeps its own; pixels beyond the last patch are left out."""
    backbone = make_backbone('pvt', out_type=out_type)
    images = torch.randn(2, 3, *size)
    maps, tokens, _ = plain(backbone, pvt_arch, images)
    expected = (tokens[:, 0],) if out_type == 'cls_token' else maps
    for one, other in zip(backbone(images), expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('out_type', ['cls_token', 'featmap'])
@torch.no_grad()
def test_position_embeddings_of_a_detectors_images_are_torchs_own_interpolation(make_backbone, pvt_arch, out_type):
    """At 800 x 1344, from 64 x 64. Patch embeddings of zeros leave nothing but position embeddings."""
    arch = pvt_arch | dict(strides=[4, 2, 2, 2], sr_ratios=[8, 4, 2, 1])
    backbone, seen = make_backbone('pvt', (64, 64), arch=arch, out_type=out_type).eval(), []
    for stage in range(1, 5):
        for parameter in getattr(backbone, f'patch_embed{stage}').norm.parameters():
            parameter.zero_()
    if out_type == 'cls_token':
        backbone.cls_token.zero_()
    backbone.pos_drop.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    backbone(torch.zeros(1, 3, 800, 1344))
    for stage, (found, old, new) in enumerate(
        zip(seen, (16, 8, 4, 2), ((200, 336), (100, 168), (50, 84), (25, 42)), strict=True), 1
    ):
        embed = getattr(backbone, f'pos_embed{stage}')
        extra = embed[:, : embed.shape[1] - old * old]
        grid = embed[:, extra.shape[1] :].transpose(1, 2).reshape(1, -1, old, old)
        resized = F.interpolate(grid, size=new, mode='bilinear', align_corners=False).flatten(2).transpose(1, 2)
        assert extra.shape[1] == (out_type == 'cls_token' and stage == 4)
        torch.testing.assert_close(found, torch.cat([extra, resized], dim=1), rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_built_for_a_non_square_size(make_backbone, pvt_arch):
    backbone = make_backbone('pvt', img_size=(32, 48))
    grids = [(8, 12), (4, 6), (4, 6), (4, 6)]
    assert backbone.grids((32, 48)) == grids
    for size in ((32, 48), (48, 32)):
        images = torch.randn(1, 3, *size)
        _, tokens, _ = plain(backbone, pvt_arch, images, grids)
        torch.testing.assert_close(backbone(images)[0].double(), tokens[:, 0], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_maps_of_both_out_types_agree_until_the_class_token_joins(make_backbone):
    """One checkpoint, two uses: stages 1 to 3 are the same, and only the fourth sees the class token."""
    classifier, dense = make_backbone('pvt'), make_backbone('pvt', out_type='featmap')
    dense.load_state_dict(classifier.state_dict())
    seen = []
    for stage in (2, 3, 4):
        embed = getattr(classifier, f'patch_embed{stage}')
        embed.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    images = torch.randn(2, 3, 32, 48)
    classifier(images)
    maps = dense(images)
    assert [tuple(one.shape) for one in maps] == [(2, 8, 8, 12), (2, 16, 4, 6), (2, 24, 4, 6), (2, 32, 4, 6)]
    assert len(seen) == 3
    assert all(torch.equal(one, other) for one, other in zip(seen, maps, strict=False))


@torch.no_grad()
def test_out_indices_choose_stages(make_backbone):
    everything, some = (
        make_backbone('pvt', out_type='featmap'),
        make_backbone('pvt', out_type='featmap', out_indices=(1, 3)),
    )
    some.load_state_dict(everything.state_dict())
    images = torch.randn(1, 3, 32, 32)
    maps = everything(images)
    assert all(torch.equal(one, maps[i]) for one, i in zip(some(images), (1, 3), strict=True))


def test_feature_maps_drop_what_classification_alone_needs(make_backbone):
    """Class token, its position embedding and the final norm of a checkpoint, without a missing or unexpected key."""
    classifier, dense = make_backbone('pvt'), make_backbone('pvt', out_type='featmap')
    checkpoint = classifier.state_dict()
    before = {name: value.clone() for name, value in checkpoint.items()}
    dense.load_state_dict(checkpoint)
    assert not {'cls_token', 'norm.weight', 'norm.bias'} & set(dense.state_dict())
    for name, value in dense.state_dict().items():
        expected = before[name][:, 1:] if name == 'pos_embed4' else before[name]
        assert torch.equal(value, expected), name
    assert set(checkpoint) == set(before)


@pytest.mark.parametrize('out_type', ['cls_token', 'featmap'])
@pytest.mark.parametrize('size', [(64, 64), (32, 64)])
def test_checkpoints_of_another_size_are_resized(make_backbone, out_type, size):
    found = make_backbone('pvt').state_dict()
    backbone = make_backbone('pvt', img_size=size, out_type=out_type)
    backbone.load_state_dict(found)
    for stage, (old, new) in enumerate(zip(GRIDS, backbone.grids(size), strict=True), 1):
        value = found[f'pos_embed{stage}'][0]
        extra = value[: len(value) - old[0] * old[1]]
        resized = reference.resize_bilinear(value[len(extra) :], old, new)
        expected = torch.cat([extra, resized]) if out_type == 'cls_token' else resized
        torch.testing.assert_close(getattr(backbone, f'pos_embed{stage}')[0], expected, rtol=1e-5, atol=1e-5)


def test_checkpoints_of_its_own_kind_load_unchanged(make_backbone):
    for settings in (
        dict(),
        dict(out_type='featmap'),
        dict(img_size=(32, 48)),
        dict(img_size=(32, 48), out_type='featmap'),
    ):
        one, other = make_backbone('pvt', **settings), make_backbone('pvt', **settings)
        other.load_state_dict(one.state_dict())
        assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def test_checkpoints_load_below_a_prefix(make_backbone):
    """As part of a detector or a classifier."""
    dense = nn.ModuleDict(dict(backbone=make_backbone('pvt', img_size=64, out_type='featmap')))
    checkpoint = {f'backbone.{name}': value for name, value in make_backbone('pvt').state_dict().items()}
    assert dense.load_state_dict(checkpoint) == ([], [])


@pytest.mark.parametrize(('size', 'other'), [((64, 96), (96, 64)), ((32, 128), (64, 64)), ((32, 48), (32, 32))])
@pytest.mark.parametrize('out_type', ['cls_token', 'featmap'])
def test_grids_are_told_by_the_checkpoint_and_refused_where_they_are_not(make_backbone, size, other, out_type):
    """As many tokens in another grid are resized to it, not taken over as they are; the class token's stays."""
    source = make_backbone('pvt', img_size=size)
    checkpoint, model = source.state_dict(), make_backbone('pvt', img_size=other, out_type=out_type)
    model.load_state_dict(checkpoint)
    for stage, (old, new) in enumerate(zip(source.pos_grids, model.pos_grids, strict=True)):
        found = checkpoint[f'pos_embed{stage + 1}']
        as_map = found[:, found.shape[1] - old[0] * old[1] :].transpose(1, 2).unflatten(2, old)
        expected = F.interpolate(as_map, size=new, mode='bilinear', align_corners=False).flatten(2).transpose(1, 2)
        loaded = getattr(model, f'pos_embed{stage + 1}')
        torch.testing.assert_close(loaded[:, loaded.shape[1] - new[0] * new[1] :], expected)
    with pytest.raises(ValueError, match=r'pos_embed1 has \d+ tokens, but its file does not give their grid'):
        make_backbone('pvt', img_size=(32, 48)).load_state_dict(dict(make_backbone('pvt', (32, 48)).state_dict()))


def gradients(backbone, images):
    backbone.zero_grad()
    torch.manual_seed(3)
    sum(one.square().sum() for one in backbone(images)).backward()
    return {name: parameter.grad.clone() for name, parameter in backbone.named_parameters()}


@pytest.mark.parametrize('out_type', ['cls_token', 'featmap'])
def test_gradient_checkpointing_changes_no_gradient(make_backbone, out_type):
    """With dropout and stochastic depth, whose draws have to be repeated."""
    settings = dict(out_type=out_type, drop_rate=0.2, drop_path_rate=0.4)
    backbone, images = make_backbone('pvt', **settings), torch.randn(4, 3, 32, 32)
    backbone.train()
    frugal = make_backbone('pvt', with_cp=True, **settings)
    frugal.load_state_dict(backbone.state_dict())
    frugal.train()
    expected, found = gradients(backbone, images), gradients(frugal, images)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_gradient_checkpointing_runs_the_blocks_twice(make_backbone):
    """Otherwise it saves no memory; a pass without gradients runs them once."""
    backbone, runs = make_backbone('pvt', with_cp=True), []
    for block in backbone.block3:
        block.register_forward_pre_hook(lambda *args: runs.append(True))
    backbone(torch.randn(1, 3, 32, 32))[0].sum().backward()
    assert len(runs) == 2
    with torch.no_grad():
        backbone(torch.randn(1, 3, 32, 32))
    assert len(runs) == 3


@needs_one_dnn
@pytest.mark.parametrize('out_type', ['cls_token', 'featmap'])
def test_gradients_have_the_layout_of_tokens(out_type):
    """If the gradient of a feature map, which has the channels first, came first, each block would copy it."""
    backbone, contiguous = PVT('tiny', img_size=64, out_type=out_type), []
    for stage in (1, 2, 3):
        last = getattr(backbone, f'block{stage}')[-1]
        last.register_full_backward_hook(lambda block, inputs, outputs: contiguous.append(outputs[0].is_contiguous()))
    gradients(backbone, torch.randn(2, 3, 64, 64))
    assert contiguous == [True, True, True]


@pytest.mark.parametrize('frozen_stages', [-1, 0, 1, 3, 4])
@pytest.mark.parametrize('out_type', ['cls_token', 'featmap'])
def test_frozen_stages_are_not_trained_and_stay_in_evaluation_mode(make_backbone, frozen_stages, out_type):
    backbone = make_backbone('pvt', frozen_stages=frozen_stages, out_type=out_type, drop_rate=0.5)
    frozen = {
        f'{part}{stage}' for stage in range(1, frozen_stages + 1) for part in ('patch_embed', 'pos_embed', 'block')
    }
    if frozen_stages == 4:
        frozen |= {'cls_token', 'norm'}
    for name, parameter in backbone.named_parameters():
        assert parameter.requires_grad == (name.split('.')[0] not in frozen), name
    for mode in (True, False, True):
        assert backbone.train(mode) is backbone
        for name, module in backbone.named_children():
            assert all(part.training == (mode and name not in frozen) for part in module.modules()), name


def test_stochastic_depth_rises_linearly_to_the_last_block(make_backbone):
    backbone = make_backbone('pvt', drop_path_rate=0.5)
    rates = [block.drop_path.drop_prob for stage in range(1, 5) for block in getattr(backbone, f'block{stage}')]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert all(type(rate) is float for rate in rates)  # torch.compile stumbles over others


def test_dropout_acts_in_training_alone(make_backbone):
    backbone, images = make_backbone('pvt', drop_rate=0.5), torch.randn(1, 3, 32, 32)
    backbone.train()
    assert not torch.equal(backbone(images)[0], backbone(images)[0])
    backbone.eval()
    assert torch.equal(backbone(images)[0], backbone(images)[0])


def test_initialisation_is_the_published_one(pvt_arch):
    """Truncated normal 0.02 for linear layers, class token and position embeddings; norms 1 and 0; torch's convs."""
    backbone = PVT(dict(pvt_arch, embed_dims=[32, 64, 96, 128]), img_size=64)
    for parameter in backbone.parameters():
        nn.init.constant_(parameter, 7)
    backbone.init_weights()
    norms = {f'{name}.' for name, module in backbone.named_modules() if isinstance(module, nn.LayerNorm)}
    convs = {f'{name}.': module for name, module in backbone.named_modules() if isinstance(module, nn.Conv2d)}
    for name, value in backbone.state_dict().items():
        owner, kind = name.rpartition('.')[0] + '.', name.rpartition('.')[2]
        if owner in norms:
            assert (value == (1 if kind == 'weight' else 0)).all(), name
        elif owner in convs:
            bound = convs[owner].weight[0].numel() ** -0.5
            assert value.abs().max() <= bound, name
            assert value.std().item() == pytest.approx(bound / 3**0.5, rel=2.5 / value.numel() ** 0.5), name
        elif kind == 'bias':
            assert (value == 0).all(), name
        else:
            tolerance = 5 * 0.02 / (2 * value.numel()) ** 0.5
            assert value.std().item() == pytest.approx(0.02, abs=tolerance), name
            assert abs(value.mean().item()) < 5 * 0.02 / value.numel() ** 0.5, name


def test_init_cfg_comes_after_the_published_initialisation(make_backbone, tmp_path):
    """A pretrained checkpoint, of another size and for another use, is what the weights are in the end."""
    classifier = make_backbone('pvt')
    torch.save(dict(state_dict=classifier.state_dict()), tmp_path / 'pvt.pth')
    dense = make_backbone(
        'pvt', out_type='featmap', init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'pvt.pth'))
    )
    dense.init_weights()
    for name, value in dense.state_dict().items():
        expected = classifier.state_dict()[name]
        assert torch.equal(value, expected[:, 1:] if name == 'pos_embed4' else expected), name


def dense_model(library, backbone):
    """A small RetinaNet or Semantic FPN around it."""
    channels, neck = backbone['arch']['embed_dims'], dict(type='FPN', out_channels=8, num_outs=5)
    if library == 'mmseg':
        head = dict(type='FPNHead', in_channels=[8] * 4, in_index=[0, 1, 2, 3], feature_strides=[4, 8, 16, 32])
        head |= dict(channels=8, num_classes=3)
        neck = neck | dict(in_channels=channels, num_outs=4)
        return dict(type='EncoderDecoder', backbone=backbone, neck=neck, decode_head=head, test_cfg=dict(mode='whole'))
    anchors = dict(type='AnchorGenerator', ratios=[1.0], strides=[4, 8, 8, 8, 16], scales=[4])
    head = dict(type='RetinaHead', num_classes=3, in_channels=8, feat_channels=8, stacked_convs=1)
    neck = neck | dict(in_channels=channels)
    return dict(type='RetinaNet', backbone=backbone, neck=neck, bbox_head=head | dict(anchor_generator=anchors))


@pytest.mark.parametrize('library', ['mmdet', 'mmseg'])
def test_dense_models_start_from_classification_checkpoints_of_ours(
    tmp_path, monkeypatch, make_classifier, pvt_arch, library
):
    """Each weight is the file's, and mmengine's initialisation log says so."""
    told = {}
    monkeypatch.setattr(
        BaseModule,
        '_dump_init_info',
        lambda self: told.update({name: self._params_init_info[p]['init_info'] for name, p in self.named_parameters()}),
    )
    classifier, path = make_classifier('pvt'), str(tmp_path / 'epoch_8.pth')
    torch.save(dict(meta=dict(epoch=8), state_dict=classifier.state_dict(), optimizer=dict(state={})), path)
    init_cfg = dict(type='Pretrained', checkpoint=path)
    backbone = dict(type='smmix_mm.PVT', arch=pvt_arch, img_size=32, out_type='featmap', init_cfg=init_cfg)
    init_default_scope(library)
    model = dict(mmdet=DETECTORS, mmseg=SEGMENTORS)[library].build(dense_model(library, backbone))
    model.init_weights()
    assert type(model.backbone) is PVT
    assert model.backbone.is_init
    expected = classifier.backbone.state_dict()
    for name, value in model.backbone.state_dict().items():
        assert value.equal(expected[name][:, 1:] if name == 'pos_embed4' else expected[name]), name
    assert {info for name, info in told.items() if name.startswith('backbone.')} == {f'BackboneInit: load from {path}'}
    assert not any('BackboneInit' in info for name, info in told.items() if not name.startswith('backbone.'))
    assert not any(hasattr(module, '_params_init_info') for module in model.modules())


def test_dense_models_do_not_start_from_half_a_checkpoint(tmp_path, make_classifier, pvt_arch):
    """mmengine would have logged it and gone on."""
    weights = make_classifier('pvt').state_dict()
    del weights['backbone.block3.0.mlp.fc2.bias']
    torch.save(dict(state_dict=weights), tmp_path / 'half.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'half.pth'))
    backbone = dict(type='smmix_mm.PVT', arch=pvt_arch, img_size=32, out_type='featmap', init_cfg=init_cfg)
    init_default_scope('mmdet')
    with pytest.raises(ValueError, match=r'half\.pth does not fit PVT:\n.*Missing.*"block3\.0\.mlp\.fc2\.bias"'):
        DETECTORS.build(dense_model('mmdet', backbone)).init_weights()


def test_classifiers_keep_a_pretrained_backbone(tmp_path, make_backbone, make_classifier):
    """What else they have gets the published initialisation."""
    source = make_backbone('pvt')
    torch.save(dict(model=source.state_dict()), tmp_path / 'pvt.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'pvt.pth'))
    classifier = make_classifier('pvt', backbone=dict(init_cfg=init_cfg))
    classifier.init_weights()
    for name, value in classifier.backbone.state_dict().items():
        assert value.equal(source.state_dict()[name]), name
    assert (classifier.head.fc.bias == 0).all()


def test_a_cut_class_token_is_not_called_resized(make_backbone):
    """The log tells of position embeddings that were interpolated, and of no others."""
    lines, logger = [], MMLogger.get_current_instance()
    logger.addFilter(lambda record: lines.append(record.getMessage()) or True)
    try:
        make_backbone('pvt', out_type='featmap').load_state_dict(make_backbone('pvt').state_dict())
        assert not any('resized' in line for line in lines)
        make_backbone('pvt', (64, 64), out_type='featmap').load_state_dict(make_backbone('pvt').state_dict())
        assert sum('resized from a grid of' in line for line in lines) == 4
    finally:
        logger.filters.pop()


@pytest.mark.parametrize('out_type', ['cls_token', 'featmap'])
@pytest.mark.parametrize('qkv_bias', [True, False])
def test_settings_show_in_the_shapes(pvt_arch, out_type, qkv_bias):
    """All but the number of heads, and the size of images that are not square."""
    found = settings_of(PVT(pvt_arch, 64, 4, out_type, qkv_bias=qkv_bias).state_dict())
    assert found == dict(
        arch=pvt_arch | dict(num_heads=[1] * 4), img_size=64, in_channels=4, out_type=out_type, qkv_bias=qkv_bias
    )
    assert 'img_size' not in settings_of(PVT(pvt_arch, (32, 64)).state_dict())
    assert settings_of(PVT('large', out_type='featmap').state_dict())['arch'] == PVT.arch_zoo['large'] | dict(
        num_heads=[1] * 4
    )


@pytest.fixture
def resizings(monkeypatch):
    """Grids that position embeddings are interpolated to."""
    grids, resize = [], pvt.resize_to_grid

    def count(embed, old, new, *settings):
        if tuple(old) != tuple(new):
            grids.append(tuple(new))
        return resize(embed, old, new, *settings)

    monkeypatch.setattr(pvt, 'resize_to_grid', count)
    return grids


def run(backbone, images):
    with torch.no_grad():
        return [one.clone() for one in backbone(images)]


def uncached(backbone, images):
    """With gradients on, nothing is kept and nothing kept is used."""
    return [one.detach() for one in backbone(images)]


def same(ones, others):
    return all(torch.equal(one, other) for one, other in zip(ones, others, strict=True))


@pytest.mark.parametrize('out_type', ['cls_token', 'featmap'])
def test_evaluation_interpolates_position_embeddings_once_a_size(make_backbone, resizings, out_type):
    backbone = make_backbone('pvt', out_type=out_type).eval()
    images = torch.randn(3, 3, 48, 64)
    expected = [uncached(backbone, image[None]) for image in images]
    assert len(resizings) == 3 * 4
    resizings.clear()
    for _ in range(2):
        for image, one in zip(images, expected, strict=True):
            assert same(run(backbone, image[None]), one)
    assert resizings == [(12, 16), (6, 8), (6, 8), (6, 8)]
    with torch.inference_mode():
        assert same(backbone(images[:1]), expected[0])
    assert len(resizings) == 4


def test_position_embeddings_of_the_built_size_are_the_parameters_themselves(make_backbone, resizings):
    backbone = make_backbone('pvt').eval()
    run(backbone, torch.randn(1, 3, 32, 32))
    assert resizings == []
    assert backbone._resized == [{}, {}, {}, {}]
    assert backbone._pos_embed(0, (8, 8)) is backbone.pos_embed1


def test_no_more_than_four_sizes_are_kept(make_backbone, resizings):
    """The last that were asked for."""
    backbone = make_backbone('pvt').eval()
    images = {side: torch.randn(1, 3, side, side) for side in (40, 48, 56, 64, 72)}
    for side in (40, 48, 56, 64, 40, 72, 40, 64, 56, 72):
        run(backbone, images[side])
    assert len(resizings) == 5 * 4
    run(backbone, images[48])
    assert len(resizings) == 6 * 4
    assert all(len(kept) == 4 for kept in backbone._resized)


def swap(backbone):
    """As EMAHook does: evaluation begins after it, since the version counter does not show it."""
    versions = [parameter._version for parameter in backbone.parameters()]
    for parameter in backbone.parameters():
        parameter.data.copy_(parameter.data * 1.5)
    assert [parameter._version for parameter in backbone.parameters()] == versions
    backbone.eval()


@torch.no_grad()
def change_in_place(backbone):
    backbone.pos_embed1.mul_(1.5)
    backbone.pos_embed4.add_(1)


def replace(backbone):
    backbone.pos_embed2 = nn.Parameter(backbone.pos_embed2.detach() * 2)


def load(backbone):
    backbone.load_state_dict({name: value * 1.5 for name, value in backbone.state_dict().items()})


def train(backbone):
    backbone.train()
    optimizer = torch.optim.SGD(backbone.parameters(), lr=0.1)
    backbone(torch.randn(2, 3, 48, 64))[0].sum().backward()
    optimizer.step()
    backbone.eval()


@pytest.mark.parametrize('change', [swap, change_in_place, replace, load, train, lambda backbone: backbone.double()])
def test_changed_weights_are_interpolated_anew(make_backbone, change):
    backbone, images = make_backbone('pvt', out_type='featmap').eval(), torch.randn(2, 3, 48, 64)
    before = run(backbone, images)
    change(backbone)
    images = images.to(backbone.pos_embed1.dtype)
    expected = uncached(backbone, images)
    assert not same(before, expected)
    for _ in range(2):
        assert same(run(backbone, images), expected)


def test_training_keeps_no_position_embeddings(make_backbone, resizings):
    """Not in a motivation pass either, which turns training off without eval(), nor where gradients are on."""
    backbone, images = make_backbone('pvt'), torch.randn(2, 3, 48, 64)
    backbone.train()
    for _ in range(2):
        run(backbone, images)
    backbone.training = False
    for _ in range(2):
        run(backbone, images)
    assert len(resizings) == 4 * 4
    backbone.eval()
    for _ in range(2):
        backbone.zero_grad()
        backbone(images)[0].sum().backward()
        assert backbone.pos_embed1.grad.abs().sum() > 0
    assert len(resizings) == 6 * 4
    run(backbone, images)
    backbone(images)[0].sum().backward()
    assert len(resizings) == 8 * 4


def test_kept_position_embeddings_are_no_part_of_the_model(make_backbone):
    """Of its state, its copies, and its pickles; copies keep their own."""
    backbone, images = make_backbone('pvt').eval(), torch.randn(1, 3, 48, 64)
    names = set(backbone.state_dict())
    expected = run(backbone, images)
    assert set(backbone.state_dict()) == names
    assert len(pickle.dumps(backbone)) == len(pickle.dumps(make_backbone('pvt').eval()))
    for other in (copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone)), copy.copy(backbone)):
        assert other._resized == [{}, {}, {}, {}]
        assert same(run(other, images), expected)
        change_in_place(other)
        assert same(run(other, images), uncached(other, images))
    assert same(run(backbone, images), uncached(backbone, images))


def test_parameters_made_for_inference_alone_are_interpolated_every_time(make_backbone):
    """They have no version counter."""
    with torch.inference_mode():
        backbone, images = make_backbone('pvt').eval(), torch.randn(1, 3, 48, 64)
        assert same(backbone(images), backbone(images))
    assert backbone._resized == [{}, {}, {}, {}]


@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
@torch.no_grad()
def test_compiled_and_traced_evaluation_keeps_nothing(make_backbone):
    backbone, images = make_backbone('pvt', out_type='featmap').eval(), torch.randn(1, 3, 48, 64)
    compiled = torch.compile(backbone, backend='eager', fullgraph=True)
    outputs = [compiled(images), compiled(images), torch.jit.trace(backbone, images, check_trace=False)(images)]
    assert backbone._resized == [{}, {}, {}, {}]
    expected = run(backbone, images)
    for maps in outputs:
        for one, other in zip(maps, expected, strict=True):
            torch.testing.assert_close(one, other)


ARCH_ERRORS = {
    'depths': dict(depths=[2, 2, 2]),
    'sr_ratios': dict(sr_ratios=[8, 4, 0, 1]),
    'embed_dims': dict(num_heads=[1, 2, 5, 4]),
    'keys': dict(heads=[1, 2, 3, 4]),
    'sr_ratios that end in 1': dict(sr_ratios=[4, 2, 2, 2]),
}


@pytest.mark.parametrize('message', ARCH_ERRORS)
def test_bad_archs_are_errors(pvt_arch, message):
    with pytest.raises(ValueError, match=message):
        PVT(pvt_arch | ARCH_ERRORS[message], img_size=32)


@pytest.mark.parametrize('key', ['embed_dims', 'num_heads', 'mlp_ratios', 'depths', 'sr_ratios'])
def test_incomplete_archs_are_errors(pvt_arch, key):
    del pvt_arch[key]
    with pytest.raises(ValueError, match=key):
        PVT(pvt_arch, img_size=32)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(arch='huge'), r"arch of PVT.*'large'.*'huge'"),
        (dict(out_type='raw'), "out_type of PVT.*'raw'"),
        (dict(out_indices=(0,)), "out_indices.*out_type='featmap'"),
        (dict(out_type='featmap', out_indices=(0, 4)), 'out_indices of PVT.*4'),
        (dict(out_type='featmap', out_indices=()), 'out_indices of PVT'),
        (dict(out_type='featmap', out_indices=(-1,)), 'out_indices of PVT.*-1'),
        (dict(frozen_stages=5), 'frozen_stages of PVT.*5'),
        (dict(frozen_stages=-2), 'frozen_stages of PVT.*-2'),
        (dict(img_size=16), '32 x 32.*16 x 16'),
        (dict(drop_rate=1.5), 'drop_rate|dropout probability.*1.5'),
        (dict(drop_path_rate=1.5), 'drop_path_rate.*1.5'),
        (dict(drop_path_rate=-0.1), 'drop_path_rate.*-0.1'),
    ],
)
def test_bad_settings_are_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        PVT(**settings)


def test_images_that_are_too_small_are_told_how_large_they_have_to_be(make_backbone):
    with pytest.raises(ValueError, match=r'at least 8 x 8 pixels.*4 x 32'):
        make_backbone('pvt')(torch.randn(1, 3, 4, 32))


def test_images_too_small_for_a_spatial_reduction_are_told_so(make_backbone):
    """A stage with fewer tokens on a side than its sr_ratio has no key and no value."""
    backbone = make_backbone('pvt')
    with pytest.raises(ValueError, match='sr_ratio'):
        backbone(torch.randn(1, 3, 8, 8))


def test_settings_stay_as_the_user_wrote_them(pvt_arch):
    before = copy.deepcopy(pvt_arch)
    PVT(pvt_arch, img_size=32)
    assert pvt_arch == before


def test_dense_checkpoint_whose_last_grid_looks_like_one_with_a_class_token_loads_unchanged():
    """5 x 10 = 50 tokens, as 7 x 7 and a class token have."""
    model = PVT('tiny', img_size=(160, 320), out_type='featmap')
    torch.nn.init.normal_(model.pos_embed4)
    other = PVT('tiny', img_size=(160, 320), out_type='featmap')
    other.load_state_dict(model.state_dict())
    assert other.pos_embed4.equal(model.pos_embed4)
