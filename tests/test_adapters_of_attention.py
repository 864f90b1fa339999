"""Attention of mmpretrain's other transformers, against the weights that the backbone itself computes."""

import copy
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from conftest import CLASSES, randomize

from smmix_mm import functional
from smmix_mm.adapters import build_adapter
from smmix_mm.engine.hooks.compile_hook import compile_backbone
from smmix_mm.registry import MODELS

VIT = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)
TWINS = dict(
    arch=dict(
        embed_dims=[8, 16, 24, 32],
        depths=[1, 1, 1, 2],
        num_heads=[1, 2, 2, 2],
        patch_sizes=[4, 2, 1, 1],
        strides=[4, 2, 1, 1],
        mlp_ratios=[2, 2, 2, 2],
    )
)
PCPVT = dict(TWINS, type='mmpretrain.PCPVT')
PCPVT['arch'] = dict(TWINS['arch'], sr_ratios=[2, 2, 1, 1])
SVT = dict(TWINS, type='mmpretrain.SVT')
SVT['arch'] = dict(TWINS['arch'], sr_ratios=[2, 2, 1, 1], window_sizes=[2, 2, 2, 2])
BEIT = dict(type='mmpretrain.BEiTViT', arch=VIT, img_size=32, patch_size=8)
BACKBONES = {
    'BEiT, its own bias': BEIT,
    'BEiT, a shared bias': BEIT | dict(use_rel_pos_bias=False, use_shared_rel_pos_bias=True),
    'BEiT, by class token': BEIT | dict(out_type='cls_token', final_norm=True, bias=True),
    'EVA-02': dict(type='mmpretrain.ViTEVA02', arch=VIT, img_size=32, patch_size=8),
    'EVA-02, by mean': dict(
        type='mmpretrain.ViTEVA02', arch=VIT, img_size=32, patch_size=8, out_type='avg_featmap', with_cls_token=False
    ),
    'T2T-ViT': dict(
        type='mmpretrain.T2T_ViT',
        img_size=64,
        embed_dims=32,
        num_layers=2,
        t2t_cfg=dict(token_dims=16, use_performer=False),
        layer_cfgs=dict(num_heads=2),
    ),
    'TNT': dict(
        type='mmpretrain.TNT',
        arch=dict(embed_dims_outer=32, embed_dims_inner=8, num_layers=2, num_heads_inner=2, num_heads_outer=2),
        img_size=64,
    ),
    'RevViT': dict(type='mmpretrain.RevVisionTransformer', arch=VIT, img_size=32, patch_size=8, out_type='avg_featmap'),
    'PCPVT': PCPVT,
    'SVT': SVT,
    # Its first blocks have to be fewer than its last: out_indices counts both.
    'HiViT': dict(
        type='mmpretrain.HiViT',
        arch=dict(embed_dims=32, depths=[1, 1, 7], num_heads=2),
        img_size=64,
        ape=True,
        rpe=True,
    ),
}
SIDES = {'T2T-ViT': 64, 'TNT': 64, 'HiViT': 64}
by_class_token = {'BEiT, by class token', 'EVA-02', 'T2T-ViT', 'TNT'}
families = pytest.mark.parametrize('name', BACKBONES)


def build(name):
    """A backbone whose attention is far from uniform, and images."""
    backbone = randomize(MODELS.build(copy.deepcopy(BACKBONES[name])))
    side = SIDES.get(name, 32)
    return backbone, torch.randn(3, 3, side, side)


def weights_of_the_last_block(backbone, images):
    """``(B, heads, E + N, E + N)``: the last softmax over all tokens, written down on its way."""
    seen = []

    def noted(softmax):
        def compute(*args, **kwargs):
            seen.append(softmax(*args, **kwargs))
            return seen[-1]

        return compute

    def attend(query, key, value, **_):
        weights = torch.softmax(query @ key.mT * query.shape[-1] ** -0.5, dim=-1)
        seen.append(weights)
        return weights @ value

    def multi_head(query, key, value, dims, heads, weight, bias, *args, **kwargs):
        """As ``F.multi_head_attention_forward`` without its output projection's shortcuts, tokens first."""
        output, _ = original(query, key, value, dims, heads, weight, bias, *args, **kwargs)
        projected = F.linear(query.transpose(0, 1), weight, bias).unflatten(2, (3, heads, -1))
        one, other = projected[:, :, 0].transpose(1, 2), projected[:, :, 1].transpose(1, 2)
        seen.append(torch.softmax(one @ other.mT / one.shape[-1] ** 0.5, dim=-1))
        return output, None

    original = F.multi_head_attention_forward
    for module in backbone.modules():
        # Where it is another function, that one calls softmax.
        if getattr(module, 'scaled_dot_product_attention', None) is F.scaled_dot_product_attention:
            module.scaled_dot_product_attention = attend
    with (
        mock.patch.object(torch.Tensor, 'softmax', noted(torch.Tensor.softmax)),
        mock.patch('torch.softmax', noted(torch.softmax)),
        mock.patch('torch.nn.functional.softmax', noted(F.softmax)),
        mock.patch('torch.nn.functional.multi_head_attention_forward', multi_head),
    ):
        backbone(images)
    return seen[-1]


@families
@torch.no_grad()
def test_attention_is_that_of_the_last_block(name):
    backbone, images = build(name)
    backbone.eval()  # Backbones of mmpretrain do not return themselves.
    adapter = build_adapter(backbone)
    features = adapter.read(images, attention=True, class_attention=True)
    weights = weights_of_the_last_block(copy.deepcopy(backbone), images)
    extra = weights.shape[-1] - features.grid[0] * features.grid[1]
    received = weights[:, :, extra:, extra:].mean(dim=(1, 2)).unflatten(1, features.grid)
    assert adapter.has_attention
    torch.testing.assert_close(features.attention, received)
    assert (received.flatten(1).max(1).values > 1.05 * received.flatten(1).min(1).values).all()
    if name in by_class_token:
        received = weights[:, :, 0, extra:].mean(dim=1).unflatten(1, features.grid)
    torch.testing.assert_close(features.class_attention, received)
    assert features.feats[-1].equal(backbone(images)[-1])
    assert adapter.read(images).attention is None


@families
@torch.no_grad()
def test_tokens_are_what_the_head_sees(name):
    """Their mean, or the tokens beside a class token that the same norm leaves."""
    backbone, images = build(name)
    backbone.eval()
    features = build_adapter(backbone).read(images)
    last = features.feats[-1]
    if last.ndim == 4:
        expected = last.flatten(2).mT
    elif name == 'TNT':
        seen = []
        backbone.norm.register_forward_hook(lambda module, args, output: seen.append(output))
        backbone(images)
        expected = seen[0][:, 1:]
    else:
        out_type, backbone.out_type = backbone.out_type, 'featmap'
        expected = backbone(images)[-1].flatten(2).mT
        if out_type == 'avg_featmap' and hasattr(backbone, 'ln2'):
            expected = backbone.ln2(expected)
    torch.testing.assert_close(features.tokens, expected)


@families
def test_a_step_trains_every_weight(make_samples, enter_run, name):
    enter_run(0, 0)
    _, images = build(name)
    neck = dict(type='mmpretrain.GlobalAveragePooling') if name in ('PCPVT', 'SVT', 'HiViT') else None
    model = MODELS.build(
        dict(
            type='smmix_mm.MixingClassifier',
            backbone=copy.deepcopy(BACKBONES[name]),
            neck=neck,
            head=dict(type='mmpretrain.LinearClsHead', num_classes=CLASSES, in_channels=64 if name == 'RevViT' else 32),
            train_cfg=dict(augments=[dict(type='smmix_mm.SMMix')]),
        )
    )
    losses = randomize(model).train().loss(images, make_samples(range(3)))
    sum(losses.values()).backward()
    unused = [key for key, weight in model.named_parameters() if weight.requires_grad and weight.grad is None]
    assert unused == []


MAPS = {
    'ResNet': dict(type='mmpretrain.ResNet', depth=18, base_channels=8, stem_channels=8),
    'ConvNeXt': dict(type='mmpretrain.ConvNeXt', arch=dict(depths=[1] * 4, channels=[8, 16, 24, 32])),
    'VAN': dict(type='mmpretrain.VAN', arch=dict(embed_dims=[8, 16, 24, 32], depths=[1] * 4, ffn_ratios=[2] * 4)),
}


@pytest.mark.parametrize(
    'name',
    [
        'EVA-02',
        'VAN',
        *(pytest.param(name, marks=pytest.mark.slow) for name in ('BEiT, its own bias', 'PCPVT', 'ResNet', 'ConvNeXt')),
    ],
)
@torch.no_grad()
def test_compiled_and_in_mixed_precision_and_channels_last(name):
    """The same scores and tokens, but for rounding."""
    backbone = randomize(MODELS.build(copy.deepcopy((BACKBONES | MAPS)[name])))
    backbone.eval()
    side = SIDES.get(name, 64 if name in MAPS else 32)
    adapter, images = build_adapter(backbone), torch.randn(2, 3, side, side)
    expected = adapter.read(images, attention=True)
    with torch.autocast('cpu', torch.bfloat16):
        found = adapter.read(images, attention=True)
    assert found.attention.dtype == torch.float32
    torch.testing.assert_close(found.attention, expected.attention, rtol=0.2, atol=0.02)
    backbone.to(memory_format=torch.channels_last)
    found = adapter.read(images.contiguous(memory_format=torch.channels_last), attention=True)
    torch.testing.assert_close(found.attention, expected.attention, rtol=1e-3, atol=1e-5)
    backbone.to(memory_format=torch.contiguous_format)
    torch._dynamo.reset()
    model = torch.nn.Module()
    model.backbone = backbone
    # Twins breaks the graph in its own code.
    compile_backbone(model, backend='eager', fullgraph=name != 'PCPVT')
    found = adapter.read(images, attention=True)
    torch.testing.assert_close(found.attention, expected.attention)
    torch.testing.assert_close(found.tokens, expected.tokens, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(('side', 'window'), [(64, 2), (32, 4)], ids=['shifted windows', 'one window'])
def test_swin_v2_by_the_places_of_its_windows(side, window):
    arch = dict(embed_dims=16, depths=[2, 2], num_heads=[1, 2], extra_norm_every_n_blocks=0)
    backbone = randomize(
        MODELS.build(
            dict(
                type='mmpretrain.SwinTransformerV2',
                arch=arch,
                img_size=side,
                window_size=window,
                out_indices=(1,),
                pretrained_window_sizes=[0, 0],
            )
        )
    )
    backbone.eval()
    images, seen = torch.randn(3, 3, side, side), []
    adapter = build_adapter(backbone)
    features = adapter.read(images, attention=True)
    rows, cols = features.grid
    assert (rows, cols) == adapter.grid(images) == (side // 8, side // 8)
    assert adapter.embed_dims == 32 and adapter.stride == (8, 8)
    last = backbone.stages[-1].blocks[-1].attn
    last.w_msa.softmax.register_forward_hook(lambda module, args, output: seen.append(output))
    last_map = backbone(images)[-1]
    torch.testing.assert_close(features.tokens, last_map.flatten(2).mT)
    # Where each token of each window lies in the map.
    places = torch.arange(rows * cols).view(1, rows, cols, 1)
    if rows > window:
        places = places.roll((-(window // 2), -(window // 2)), (1, 2))
    places = last.window_partition(places, window).flatten(1)
    expected = torch.zeros(3, rows * cols)
    for index, weights in enumerate(seen[0]):
        image, where = divmod(index, len(places))
        for key, place in enumerate(places[where]):
            expected[image, place] += weights[:, :, key].sum(1).mean(0)
    torch.testing.assert_close(features.attention, (expected / (rows * cols)).view(3, rows, cols))


def test_lora_is_read_as_the_backbone_in_it(make_samples, enter_run):
    enter_run(0, 0)
    vit = dict(type='mmpretrain.VisionTransformer', arch=VIT, img_size=32, patch_size=8)
    lora = dict(type='mmpretrain.LoRAModel', module=vit, alpha=4, rank=2, targets=[dict(type='qkv')])
    model = MODELS.build(
        dict(
            type='smmix_mm.MixingClassifier',
            backbone=lora,
            head=dict(type='mmpretrain.VisionTransformerClsHead', num_classes=CLASSES, in_channels=32),
            train_cfg=dict(augments=[dict(type='smmix_mm.SMMix')]),
        )
    )
    images = torch.randn(3, 3, 32, 32)
    randomize(model).eval()
    with torch.no_grad():
        found = model.adapter.read(images, attention=True)
        expected = build_adapter(model.backbone.module).read(images, attention=True)
    assert found.attention.equal(expected.attention)
    losses = model.train().loss(images, make_samples(range(3)))
    sum(losses.values()).backward()
    trained = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert any('lora_' in name for name in trained)
    assert not any(name.startswith('backbone') and 'lora_' not in name for name in trained)


@torch.no_grad()
def test_after_a_layer_norm_the_energy_is_that_before_it():
    """Behind the norm the tokens of VAN have nearly the same energy."""
    arch = dict(embed_dims=[8, 16, 24, 32], depths=[1, 1, 1, 1], ffn_ratios=[2, 2, 2, 2])
    backbone = randomize(MODELS.build(dict(type='mmpretrain.VAN', arch=arch)))
    backbone.eval()
    images, seen = torch.randn(2, 3, 64, 96), []
    features = build_adapter(backbone).read(images, attention=True)
    backbone.norm4.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    backbone(images)
    expected = functional.activation_score(seen[0]).unflatten(1, (2, 3))
    torch.testing.assert_close(features.attention, expected)
    assert not torch.allclose(features.attention, functional.activation_score(features.tokens).unflatten(1, (2, 3)))


@pytest.mark.parametrize(
    ('cfg', 'message'),
    [
        (PCPVT | dict(arch=dict(PCPVT['arch'], sr_ratios=[2, 2, 1, 2])), r'last block of PCPVT has sr_ratio=2.*set'),
        (BACKBONES['T2T-ViT'] | dict(final_norm=False), r"T2T_ViT needs tokens behind a norm.*'cls_token' and fin"),
        (
            SVT | dict(arch=dict(SVT['arch'], depths=[1, 1, 1, 1])),
            r'last block of SVT attends inside windows.*depths=\[1, 1, 1, 1\].*even last depth',
        ),
        (PCPVT | dict(out_indices=(2,)), r'out_indices of PCPVT have to end with the last one, 3, .* got \(2,\)'),
        (BACKBONES['T2T-ViT'] | dict(out_indices=[0]), r'out_indices of T2T_ViT have to end .* 1, .* got \(0,\)'),
        (BACKBONES['EVA-02'] | dict(out_indices=[0]), r'out_indices of ViTEVA02 have to end .* 1, .* got \(0,\)'),
        (BACKBONES['RevViT'] | dict(out_type='raw'), r"RevVisionTransformer .* out_type='raw'"),
    ],
)
def test_settings_without_readable_attention_are_refused(cfg, message):
    with pytest.raises(ValueError, match=message):
        build_adapter(MODELS.build(copy.deepcopy(cfg)))
