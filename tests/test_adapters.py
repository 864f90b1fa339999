import copy
import gc
import weakref

import pytest
import reference
import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import DropPath
from mmpretrain.models.backbones import ResNet, SwinTransformer, VisionTransformer
from mmpretrain.models.necks import GlobalAveragePooling
from mmpretrain.models.utils import WindowMSAV2
from torch import nn
from torch.overrides import TorchFunctionMode

from smmix_mm.adapters import (
    FeatureMapAdapter,
    SwinTransformerAdapter,
    Tap,
    VisionTransformerAdapter,
    build_adapter,
    opened,
)
from smmix_mm.compat import make_traceable
from smmix_mm.models import PVT, CaiT
from smmix_mm.models.backbones import CaiTAdapter, PVTAdapter
from smmix_mm.registry import MODELS

# Settings, the size the backbone is built for, the size it gets.
CASES = {
    'vit': ('vit', dict(), (32, 32), (32, 32)),
    'vit, other size': ('vit', dict(), (32, 32), (48, 32)),
    'vit, built non-square, other size': ('vit', dict(), (32, 48), (56, 24)),
    'vit, size that is padded': ('vit', dict(), (32, 32), (34, 47)),
    'vit, mean of tokens': ('vit', dict(out_type='avg_featmap'), (32, 32), (32, 48)),
    'vit, no class token': ('vit', dict(with_cls_token=False, out_type='avg_featmap'), (32, 48), (32, 32)),
    'vit, no class token, one norm': (
        'vit',
        dict(with_cls_token=False, out_type='avg_featmap', final_norm=False),
        (32, 32),
        (32, 32),
    ),
    'vit, map': ('vit', dict(out_type='featmap'), (32, 32), (32, 40)),
    'vit, no qkv bias, pre-norm, several outputs': (
        'vit',
        dict(qkv_bias=False, pre_norm=True, out_indices=[0, 2]),
        (32, 32),
        (32, 32),
    ),
    'vit, checkpoint-free layer scale': ('vit', dict(layer_scale_init_value=0.3), (32, 32), (32, 32)),
    'pvt': ('pvt', dict(), (32, 32), (32, 32)),
    'pvt, other size': ('pvt', dict(), (32, 32), (48, 64)),
    'pvt, built non-square, other size': ('pvt', dict(), (32, 48), (64, 32)),
    'pvt, no qkv bias': ('pvt', dict(qkv_bias=False), (32, 32), (32, 32)),
    'pvt, gradient checkpointing': ('pvt', dict(with_cp=True), (32, 32), (32, 32)),
    'cait': ('cait', dict(), (32, 32), (32, 32)),
    'cait, other size': ('cait', dict(), (32, 32), (48, 32)),
    'cait, built non-square, other size': ('cait', dict(), (32, 48), (24, 56)),
    'cait, one class-attention block, other patches': (
        'cait',
        dict(arch=dict(embed_dims=32, depth=2, num_heads=4, class_depth=1), patch_size=4),
        (16, 20),
        (16, 20),
    ),
    'cait, no qkv bias': ('cait', dict(qkv_bias=False), (32, 32), (32, 32)),
    'cait, gradient checkpointing': ('cait', dict(with_cp=True), (32, 32), (32, 32)),
    'swin, one window': ('swin', dict(), (32, 32), (32, 32)),
    'swin, two windows, not shifted': ('swin', dict(), (32, 32), (64, 32)),
    'swin, two by two windows, shifted': ('swin', dict(), (32, 32), (64, 64)),
    'swin, two by three windows, shifted': ('swin', dict(), (32, 32), (64, 96)),
    'swin, padded to windows, shifted': ('swin', dict(), (32, 32), (48, 56)),
    'swin, padded to windows, not shifted': (
        'swin',
        dict(arch=dict(embed_dims=16, depths=[2, 1], num_heads=[1, 2])),
        (32, 32),
        (40, 72),
    ),
    'swin, windows of odd side': ('swin', dict(window_size=3), (32, 32), (32, 40)),
    'swin, windows of two': ('swin', dict(window_size=2), (32, 32), (32, 32)),
    'swin, map of one window, shifted': ('swin', dict(pad_small_map=True), (32, 32), (32, 32)),
    'swin, map smaller than a window': ('swin', dict(pad_small_map=True), (32, 32), (24, 16)),
    'swin, sizes that are padded': ('swin', dict(), (32, 32), (37, 51)),
    'swin, three stages': (
        'swin',
        dict(arch=dict(embed_dims=8, depths=[1, 1, 2], num_heads=[1, 1, 2]), patch_size=2, out_indices=(2,)),
        (32, 32),
        (44, 64),
    ),
    'swin, patches that overlap': (
        'swin',
        dict(patch_cfg=dict(kernel_size=7, stride=4, padding=3), stage_cfgs=dict(downsample_cfg=dict(kernel_size=3))),
        (32, 32),
        (58, 66),
    ),
    'swin, no qkv bias': (
        'swin',
        dict(stage_cfgs=dict(block_cfgs=dict(attn_cfgs=dict(qkv_bias=False)))),
        (32, 32),
        (64, 48),
    ),
    'swin, absolute position embeddings, several outputs': (
        'swin',
        dict(use_abs_pos_embed=True, out_indices=(0, 1)),
        (32, 32),
        (48, 48),
    ),
    'swin, outputs after merging': (
        'swin',
        dict(out_after_downsample=True, out_indices=(0, 1)),
        (32, 32),
        (48, 48),
    ),
    'swin, gradient checkpointing': ('swin', dict(with_cp=True), (32, 32), (48, 48)),
}
FAMILIES = ['vit', 'pvt', 'cait', 'swin']
EVERY_FAMILY = pytest.mark.parametrize('family', FAMILIES)


@pytest.fixture(params=CASES)
def case(request, make_backbone):
    """A backbone and images for it."""
    family, settings, built_size, size = CASES[request.param]
    return make_backbone(family, built_size, **settings), torch.randn(2, 3, *size)


def input_of(module, run):
    """What a module is given while ``run()`` runs."""
    seen = []
    handle = module.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    run()
    handle.remove()
    return seen[0]


def bias_of(*layers):
    """Zeros where a layer has none."""
    return torch.cat([torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias for layer in layers])


@torch.no_grad()
def attentions_by_hand(backbone, images):
    """Explicit softmax on the input of the last block's attention, with that block's own projection weights.

    Image attention and class attention, ``(B, N)`` each.
    """
    if isinstance(backbone, CaiT):
        own, gathering = backbone.blocks[-1].attn, backbone.blocks_token_only[-1].attn
        by_name = [{name: value.double() for name, value in layer.state_dict().items()} for layer in (own, gathering)]
        by_name[0].setdefault('qkv.bias', bias_of(own.qkv).double())
        for name in 'qkv':
            by_name[1].setdefault(f'{name}.bias', bias_of(getattr(gathering, name)).double())
        _, attention = reference.talking_heads(
            input_of(own, lambda: backbone(images)).double(), by_name[0], '', own.num_heads
        )
        _, row = reference.class_token_attention(
            input_of(gathering, lambda: backbone(images)).double(), by_name[1], '', gathering.num_heads
        )
        return attention.mean(dim=(1, 2)), row.mean(dim=1)[:, 1:]
    if isinstance(backbone, SwinTransformer):
        last, seen = backbone.stages[-1].blocks[-1].attn, []
        handle = last.register_forward_pre_hook(lambda module, args: seen.extend(args))
        backbone(images)
        handle.remove()
        inputs, grid = seen
        # With one window a side stock Swin does not shift, unless it pads small maps.
        shift = last.shift_size if last.pad_small_map or min(grid) > last.window_size else 0
        qkv, table = last.w_msa.qkv, last.w_msa.relative_position_bias_table
        attention = reference.window_attention(
            inputs, tuple(grid), qkv.weight, bias_of(qkv), table, last.w_msa.num_heads, last.window_size, shift
        )
        return attention, attention
    if isinstance(backbone, PVT):
        last = backbone.block4[-1].attn
        layers, extra = [last.q, last.kv], 1
    else:
        last = backbone.layers[-1].attn
        layers, extra = [last.qkv], int(backbone.with_cls_token)
    weight, bias = torch.cat([layer.weight for layer in layers]), bias_of(*layers)
    inputs = input_of(last, lambda: backbone(images))
    attention = reference.block_attention(inputs, weight, bias, last.num_heads, num_extra_tokens=extra)
    # The head of 'avg_featmap' and 'featmap' does not see the class token.
    if not extra or getattr(backbone, 'out_type', 'cls_token') != 'cls_token':
        return attention, attention
    return attention, reference.block_class_attention(inputs, weight, bias, last.num_heads)


@torch.no_grad()
def test_feats_are_the_plain_backbones_bit_for_bit(case):
    backbone, images = case
    plain = copy.deepcopy(backbone)(images)
    adapter = build_adapter(backbone)
    for attention in (False, True):
        feats = adapter.read(images, attention=attention).feats
        assert type(feats) is type(plain) and len(feats) == len(plain)
        assert all(torch.equal(one, other) for one, other in zip(feats, plain, strict=True))


@torch.no_grad()
def test_grid_is_known_without_running_the_backbone(case):
    backbone, images = case
    adapter = build_adapter(backbone)
    features = adapter.read(images)
    ran = []
    backbone.register_forward_hook(lambda *args: ran.append(True))
    assert adapter.grid(images) == features.grid
    assert not ran
    assert features.tokens.shape == (2, features.grid[0] * features.grid[1], adapter.embed_dims)


def test_attentions_equal_an_explicit_softmax(case):
    backbone, images = case
    adapter = build_adapter(backbone)
    expected = dict(zip(('attention', 'class_attention'), attentions_by_hand(backbone, images), strict=True))
    features = adapter.read(images, attention=True, class_attention=True)
    for name, values in expected.items():
        found = getattr(features, name)
        assert found.shape == (2, *features.grid)
        assert found.dtype == torch.float32
        assert not found.requires_grad
        torch.testing.assert_close(found.flatten(1).double(), values, rtol=1e-4, atol=1e-9)
        # Far enough from uniform for the comparison to mean something.
        assert values.std(1).min() > 0.05 * values.mean()


@torch.no_grad()
def test_attentions_are_read_if_they_are_asked_for(case):
    """Each alone as with the other."""
    backbone, images = case
    adapter = build_adapter(backbone)
    both = adapter.read(images, attention=True, class_attention=True)
    assert adapter.read(images, attention=True).attention.equal(both.attention)
    assert adapter.read(images, class_attention=True).class_attention.equal(both.class_attention)
    neither = adapter.read(images)
    assert neither.attention is None
    assert neither.class_attention is None


@EVERY_FAMILY
@torch.no_grad()
def test_attention_is_averaged_in_full_precision(make_backbone, family):
    """Under autocast too, whatever the backbone's softmax is taken in."""
    adapter, images = build_adapter(make_backbone(family)), torch.randn(2, 3, 32, 32)
    expected = adapter.read(images, attention=True, class_attention=True)
    with torch.autocast('cpu', torch.bfloat16):
        found = adapter.read(images, attention=True, class_attention=True)
    for name in ('attention', 'class_attention'):
        scores = getattr(found, name)
        assert scores.dtype == torch.float32
        assert not scores.equal(scores.bfloat16().float())
        torch.testing.assert_close(scores, getattr(expected, name), rtol=0.5, atol=0.05)


@EVERY_FAMILY
def test_attention_carries_no_gradients(make_backbone, family):
    """Nor does asking for it change any."""
    backbone, images = make_backbone(family), torch.randn(2, 3, 32, 32)
    adapter, grads = build_adapter(backbone), []
    for asked in (False, True):
        features = adapter.read(images, attention=asked, class_attention=asked)
        loss = features.feats[0].square().sum() + features.tokens.square().sum()
        grads.append(torch.autograd.grad(loss, list(backbone.parameters())))
    assert all(torch.equal(one, other) for one, other in zip(*grads, strict=True))


@pytest.mark.parametrize('size', [(32, 32), (48, 24)])
@torch.no_grad()
def test_cait_tokens_equal_a_plain_cait(make_backbone, cait_arch, size):
    """Written out from its definition: tokens, class token and both attentions at once."""
    backbone, images = make_backbone('cait'), torch.randn(2, 3, *size)
    features = build_adapter(backbone).read(images, attention=True, class_attention=True)
    parameters = {name: value.double() for name, value in backbone.state_dict().items()}
    tokens, attention, row = reference.cait(parameters, cait_arch, (4, 4), images.double())
    torch.testing.assert_close(features.tokens.double(), tokens[:, 1:], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(features.feats[0].double(), tokens[:, 0], rtol=1e-4, atol=1e-4)
    for found, expected in (
        (features.attention, attention.mean(dim=(1, 2))),
        (features.class_attention, row.mean(dim=1)[:, 1:]),
    ):
        torch.testing.assert_close(found.flatten(1).double(), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize('size', [(32, 32), (37, 51), (64, 96)])
@torch.no_grad()
def test_swin_tokens_are_the_last_map(make_backbone, size):
    """Behind its norm; their mean is what the stock neck gives to the head."""
    backbone = make_backbone('swin', out_indices=(0, 1))
    features = build_adapter(backbone).read(torch.randn(2, 3, *size))
    assert torch.equal(features.tokens, features.feats[-1].flatten(2).mT)
    assert features.grid == features.feats[-1].shape[2:]
    pooled = GlobalAveragePooling()(features.feats)[-1]
    torch.testing.assert_close(features.tokens.mean(dim=1), pooled)


@pytest.mark.parametrize(('size', 'total'), [((64, 96), 1.0), ((48, 56), None)])
@torch.no_grad()
def test_swin_attention_is_that_of_whole_images(make_backbone, size, total):
    """What all queries pay sums to one, over all windows together; less, if some of it goes to padding."""
    features = build_adapter(make_backbone('swin')).read(torch.randn(2, 3, *size), attention=True)
    sums = features.attention.sum(dim=(1, 2))
    if total is None:
        assert sums.min() > 0 and sums.max() < 0.999
    else:
        torch.testing.assert_close(sums, torch.full((2,), total))


@pytest.mark.parametrize('settings', [dict(), dict(with_cls_token=False, out_type='avg_featmap')])
@torch.no_grad()
def test_vit_tokens_are_what_the_stock_backbone_gives_to_those_who_ask(make_backbone, vit_arch, settings):
    """The same weights with out_type 'raw' and 'featmap'."""
    backbone, images = make_backbone('vit', (32, 48), **settings), torch.randn(2, 3, 40, 32)
    features = build_adapter(backbone).read(images)
    tokens = {}
    for out_type in ('raw', 'featmap'):
        other = VisionTransformer(
            vit_arch, img_size=(32, 48), patch_size=8, with_cls_token=backbone.with_cls_token, out_type=out_type
        )
        other.load_state_dict(backbone.state_dict(), strict=out_type == 'raw' and not settings)
        tokens[out_type] = other(images)[0]
    expected = tokens['raw'][:, int(backbone.with_cls_token) :]
    assert torch.equal(tokens['featmap'].flatten(2).mT, expected)
    assert features.grid == tokens['featmap'].shape[2:]
    if backbone.out_type == 'avg_featmap':
        # The norm that the stock backbone puts between the tokens' mean and the head.
        expected = F.layer_norm(expected, (32,), backbone.ln2.weight, backbone.ln2.bias, 1e-6)
    torch.testing.assert_close(features.tokens, expected, rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_vit_map_tokens_are_the_map(make_backbone):
    backbone, images = make_backbone('vit', out_type='featmap'), torch.randn(2, 3, 32, 40)
    features = build_adapter(backbone).read(images)
    assert torch.equal(features.tokens, features.feats[0].flatten(2).mT)


@pytest.mark.parametrize('size', [(32, 32), (48, 64)])
@torch.no_grad()
def test_pvt_tokens_equal_a_plain_pvt(make_backbone, pvt_arch, size):
    """Written out from its definition, with a softmax: tokens, class token and attention at once."""
    backbone, images = make_backbone('pvt'), torch.randn(2, 3, *size)
    features = build_adapter(backbone).read(images, attention=True)
    parameters = {name: value.double() for name, value in backbone.state_dict().items()}
    built = [(8, 8), (4, 4), (4, 4), (4, 4)]
    _, tokens, attention = reference.pvt(parameters, pvt_arch, built, images.double())
    torch.testing.assert_close(features.tokens.double(), tokens[:, 1:], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(features.feats[0].double(), tokens[:, 0], rtol=1e-4, atol=1e-4)
    received = attention[:, :, 1:, 1:].mean(dim=(1, 2))
    torch.testing.assert_close(features.attention.flatten(1).double(), received, rtol=1e-4, atol=0)


@pytest.mark.parametrize('settings', [dict(arch='deit-tiny'), dict(arch='deit-small', patch_size=32)])
def test_published_archs(settings):
    """Of the size they are trained in, with the weights they start from."""
    torch.manual_seed(1)
    backbone = VisionTransformer(img_size=224, **settings)
    backbone.init_weights()
    images = torch.randn(1, 3, 224, 224)
    adapter = build_adapter(backbone)
    assert adapter.grid(images) == ((14, 14) if settings['arch'] == 'deit-tiny' else (7, 7))
    with torch.no_grad():
        plain = backbone(images)[0]
        features = adapter.read(images, attention=True)
        inputs = input_of(backbone.layers[-1].attn, lambda: backbone(images))
    assert torch.equal(features.feats[0], plain)
    # The same softmax by plain matrix products: loops over 197 x 197 x 64 products would take minutes.
    last = backbone.layers[-1].attn
    query, key, _ = (inputs @ last.qkv.weight.T + last.qkv.bias).double().chunk(3, dim=2)
    heads = torch.arange(backbone.embed_dims).reshape(last.num_heads, -1)
    weights = [(query[..., head] @ key[..., head].mT / len(head) ** 0.5).softmax(-1) for head in heads]
    expected = (sum(weights) / len(weights))[:, 1:, 1:].mean(1)
    torch.testing.assert_close(features.attention.flatten(1).double(), expected, rtol=1e-4, atol=0)


class CountAttention(TorchFunctionMode):
    fused = softmax = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.fused += func is F.scaled_dot_product_attention
        self.softmax += func in (torch.softmax, torch.Tensor.softmax, F.softmax)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ('family', 'fused', 'explicit', 'beside'),
    [('vit', 3, 0, (1, 1)), ('pvt', 6, 0, (1, 1)), ('cait', 2, 3, (0, 1)), ('swin', 0, 4, (0, 0))],
)
@torch.no_grad()
def test_blocks_keep_their_attention(make_backbone, family, fused, explicit, beside):
    """Fused or with a softmax; where it is fused, one softmax beside the last block for each attention asked for."""
    adapter = build_adapter(make_backbone(family))
    for attention in (False, True):
        for class_attention in (False, True):
            with CountAttention() as count:
                adapter.read(torch.randn(1, 3, 32, 32), attention=attention, class_attention=class_attention)
            taken = beside[0] * attention + beside[1] * class_attention
            assert (count.fused, count.softmax) == (fused, explicit + taken)


@EVERY_FAMILY
def test_gradients_flow_through_feats_and_tokens(make_backbone, family):
    """To the first parameter of the backbone, as from the plain one."""
    backbone, images = make_backbone(family), torch.randn(1, 3, 32, 32)
    weight = next(value for name, value in backbone.named_parameters() if name.startswith('patch_embed'))
    (expected,) = torch.autograd.grad(backbone(images)[0].square().sum(), weight)
    features = build_adapter(backbone).read(images)
    (found,) = torch.autograd.grad(features.feats[0].square().sum(), weight, retain_graph=True)
    assert torch.equal(found, expected)
    (through_tokens,) = torch.autograd.grad(features.tokens.square().sum(), weight)
    assert through_tokens.abs().min() > 0


# What the adapters read, and where the tokens come from.
TAPPED = dict(
    vit=('layers.2.attn.qkv', 'ln1'),
    pvt=('block4.1.attn.kv', 'norm'),
    cait=('blocks_token_only.1.attn.k', 'norm'),
    swin=('stages.1.blocks.1.attn.w_msa.softmax', 'norm1'),
)


@EVERY_FAMILY
def test_nothing_is_kept_after_a_read(make_backbone, family):
    """No tensor outlives the features that hold it, so no graph outlives its step; also where the backbone fails."""
    backbone = make_backbone(family)
    adapter = build_adapter(backbone)
    last, final = backbone.get_submodule(TAPPED[family][0]), backbone.get_submodule(TAPPED[family][1])
    kept = []
    for module in (last, final):
        module.register_forward_hook(lambda module, args, output: kept.append(weakref.ref(output)))

    features = adapter.read(torch.randn(1, 3, 32, 32), attention=True, class_attention=True)
    assert kept[-1]() is not None
    del features
    gc.collect()
    # CaiT's norm runs for the class token and for the image tokens.
    before = 3 if family == 'cait' else 2
    assert [ref() for ref in kept] == [None] * before

    final.register_forward_hook(lambda module, args, output: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        adapter.read(torch.randn(1, 3, 32, 32), attention=True)
    gc.collect()
    assert [ref() for ref in kept[before:]] == [None, None]
    assert not [value for value in vars(adapter).values() if getattr(value, 'is_open', False)]


@EVERY_FAMILY
def test_runs_beside_the_adapter_leave_nothing_in_it(make_backbone, family):
    backbone = make_backbone(family)
    adapter = build_adapter(backbone)
    backbone(torch.randn(1, 3, 32, 32))
    assert not any(torch.is_tensor(getattr(value, 'value', None)) for value in vars(adapter).values())


@pytest.mark.parametrize(
    'family', ['pvt', *(pytest.param(name, marks=pytest.mark.slow) for name in ('vit', 'cait', 'swin'))]
)
@torch.no_grad()
def test_a_compiled_backbone_is_read_like_any_other(make_backbone, family):
    """Whether attention is asked for or not, in turns."""
    backbone, images = make_backbone(family), torch.randn(2, 3, 48, 64)
    adapter = build_adapter(backbone)
    expected = adapter.read(images, attention=True, class_attention=True)
    make_traceable(backbone)
    for part in backbone.modules():
        if isinstance(part, DropPath):
            part.drop_prob = float(part.drop_prob)  # a NumPy scalar in the stock ViT, which breaks the graph
    backbone.forward = torch.compile(backbone.forward, backend='eager', fullgraph=True)
    for asked in (True, False, True):
        features = adapter.read(images, attention=asked, class_attention=asked)
        torch.testing.assert_close(features.feats[0], expected.feats[0])
        torch.testing.assert_close(features.tokens, expected.tokens)
        if asked:
            torch.testing.assert_close(features.attention, expected.attention)
            torch.testing.assert_close(features.class_attention, expected.class_attention)


@EVERY_FAMILY
@torch.no_grad()
def test_a_copy_of_the_classifier_reads_its_own_backbone(make_classifier, family):
    """As the averaged model of an EMA does."""
    model, images = make_classifier(family).eval(), torch.randn(2, 3, 32, 32)
    twin = copy.deepcopy(model)
    assert twin.adapter.backbone is twin.backbone
    before = model.adapter.read(images, attention=True)
    for parameter in twin.backbone.parameters():
        parameter.mul_(1.5)

    of_twin, of_fresh = (
        adapter.read(images, attention=True) for adapter in (twin.adapter, build_adapter(copy.deepcopy(twin.backbone)))
    )
    after = model.adapter.read(images, attention=True)
    for name in ('tokens', 'attention'):
        assert torch.equal(getattr(of_twin, name), getattr(of_fresh, name))
        assert torch.equal(getattr(after, name), getattr(before, name))
        assert not torch.equal(getattr(of_twin, name), getattr(before, name))


@pytest.mark.parametrize(
    ('family', 'layer', 'module'),
    [('vit', 1, 'layers.0'), ('vit', 2, 'layers.1'), ('vit', 3, 'layers.2')]
    + [('pvt', stage, f'block{stage}.{last}') for stage, last in enumerate((0, 1, 0, 1), 1)]
    + [('cait', 1, 'blocks.0'), ('cait', 2, 'blocks.1')],
)
@pytest.mark.parametrize('size', [(32, 32), (48, 64)])
@torch.no_grad()
def test_layers_are_what_their_blocks_put_out(make_backbone, family, layer, module, size):
    """As a map, without class token."""
    backbone, seen = make_backbone(family), []
    adapter, images = build_adapter(backbone), torch.randn(2, 3, *size)
    backbone.get_submodule(module).register_forward_hook(lambda module, args, output: seen.append(output))
    found = adapter.read_layer(images, layer)
    assert len(seen) == 1
    stride = {'pvt': (4, 8, 8, 8)}.get(family, (8, 8, 8))[layer - 1]
    assert adapter.layer_dims(layer) == seen[0].shape[2]
    grid = size[0] // stride, size[1] // stride
    assert found.shape == (2, seen[0].shape[2], *grid)
    for row in range(grid[0]):
        for col in range(grid[1]):
            assert torch.equal(found[:, :, row, col], seen[0][:, row * grid[1] + col - grid[0] * grid[1]])


@pytest.mark.parametrize('after_merging', [False, True])
@pytest.mark.parametrize('size', [(32, 32), (64, 32)])
@torch.no_grad()
def test_layers_of_swin_are_what_its_stages_hand_on(make_backbone, size, after_merging):
    """Merged but for the last one, and normalised: mean 0 and variance 1 over the channels of each token."""
    backbone = make_backbone('swin', out_after_downsample=after_merging)
    images = torch.randn(2, 3, *size)
    adapter = build_adapter(backbone)
    tokens, grid = backbone.patch_embed(images)
    for layer, stage in enumerate(backbone.stages, 1):
        tokens, grid = stage(tokens, grid, do_downsample=True)
        found = adapter.read_layer(images, layer)
        assert found.shape == (2, adapter.layer_dims(layer), *grid) == (2, 32, size[0] // 8, size[1] // 8)
        centred = tokens - tokens.mean(dim=2, keepdim=True)
        expected = centred / (centred.square().mean(dim=2, keepdim=True) + 1e-5).sqrt()
        for row in range(grid[0]):
            for col in range(grid[1]):
                torch.testing.assert_close(found[:, :, row, col], expected[:, row * grid[1] + col])


def test_the_middle_layer_of_swin_tiny_is_what_openmixup_reads():
    backbone = MODELS.build(dict(type='mmpretrain.SwinTransformer', arch='tiny'))
    adapter = build_adapter(backbone)
    assert (adapter.middle_layer, adapter.layer_dims(3)) == (3, 768)
    with torch.no_grad():
        assert adapter.read_layer(torch.zeros(1, 3, 224, 224), 3).shape == (1, 768, 7, 7)


@pytest.mark.parametrize(('family', 'layers', 'middle'), [('vit', 3, 2), ('pvt', 4, 3), ('cait', 3, 2), ('swin', 2, 1)])
def test_layers_out_of_range_are_refused(make_backbone, family, layers, middle):
    backbone = make_backbone(family)
    adapter, images = build_adapter(backbone), torch.randn(1, 3, 32, 32)
    assert (adapter.num_layers, adapter.middle_layer) == (layers, middle)
    for layer in (-1, 0, layers + 1):
        has = f'{type(backbone).__name__} has layers 1 to {layers}, but layer {layer} was requested'
        with pytest.raises(ValueError, match=has):
            adapter.read_layer(images, layer)


@pytest.mark.parametrize('family', FAMILIES)
def test_reading_a_layer_again_and_again_leaves_nothing_behind(make_backbone, family):
    """Neither hooks nor tensors; gradients flow from what was read."""
    backbone = make_backbone(family)
    adapter, hooks = build_adapter(backbone), set()
    for _ in range(3):
        adapter.read_layer(torch.randn(1, 3, 32, 32), 1).sum().backward()
        hooks.add(sum(len(module._forward_hooks) for module in backbone.modules()))
        taps = [value for value in vars(adapter).values() if hasattr(value, 'is_open')]
        taps += [tap for value in vars(adapter).values() if isinstance(value, dict) for tap in value.values()]
        assert len(taps) >= 3
        assert not any(tap.is_open or tap.value is not None for tap in taps)
    assert len(hooks) == 1
    assert all(value.grad.abs().sum() > 0 for name, value in backbone.named_parameters() if 'patch_embed.' in name)


def test_backbones_without_an_adapter_are_read_by_their_map():
    adapter = build_adapter(ResNet(18))
    assert type(adapter) is FeatureMapAdapter
    assert not adapter.has_attention
    assert adapter.stride == (32, 32)


def test_a_family_includes_its_subclasses(vit_arch, pvt_arch, cait_arch, swin_arch):
    class MyViT(VisionTransformer):
        pass

    class MyPVT(PVT):
        pass

    class MyCaiT(CaiT):
        pass

    class MySwin(SwinTransformer):
        pass

    assert type(build_adapter(MyCaiT(cait_arch, img_size=32))) is CaiTAdapter
    assert type(build_adapter(MySwin(swin_arch, out_indices=(1,)))) is SwinTransformerAdapter
    assert type(build_adapter(MyViT(vit_arch, img_size=32, patch_size=8))) is VisionTransformerAdapter
    assert type(build_adapter(MyPVT(pvt_arch, img_size=32))) is PVTAdapter


@pytest.mark.parametrize(
    ('family', 'settings', 'message'),
    [
        ('vit', dict(out_type='raw'), "out_type='raw'.*use out_type='cls_token'"),
        ('vit', dict(out_indices=[1]), r'out_indices .* have to end with the last one, 2, .* but got \(1,\)'),
        ('vit', dict(final_norm=False), 'final_norm=False.*set final_norm=True'),
        ('vit', dict(final_norm=False, out_type='featmap'), 'final_norm=False.*featmap.*set final_norm=True'),
        ('pvt', dict(out_type='featmap'), "out_type='cls_token'.*'featmap'"),
        ('swin', dict(out_indices=(0,)), r'out_indices of SwinTransformer.* last stage, 1,.*\(0,\)'),
        ('swin', dict(norm_cfg=None), 'norm_cfg=None of SwinTransformer.*normalised tokens'),
        (
            'swin',
            dict(stage_cfgs=dict(block_cfgs=dict(attn_cfgs=dict(window_msa=WindowMSAV2)))),
            'attention of SwinTransformer is WindowMSAV2.*WindowMSA only',
        ),
        ('swin', dict(stage_cfgs=dict(downsample=True)), 'stage_cfgs of SwinTransformer.*downsample=True'),
    ],
)
def test_settings_that_cannot_be_read_are_refused(make_backbone, family, settings, message):
    with pytest.raises(ValueError, match=message):
        build_adapter(make_backbone(family, **settings))


def test_foreign_attention_is_refused(make_backbone):
    backbone = make_backbone('vit')
    backbone.layers[-1].attn = nn.MultiheadAttention(32, 2)
    backbone.layers[-1].attn.__class__ = type('OtherAttention', (nn.MultiheadAttention,), {})
    with pytest.raises(ValueError, match=r'OtherAttention.*MultiheadAttention'):
        build_adapter(backbone)


@pytest.mark.parametrize(
    ('family', 'settings', 'size', 'message'),
    [
        ('pvt', dict(), (4, 32), r'at least 8 x 8 pixels.*PVT.*4 x 32'),
        ('cait', dict(), (32, 36), r'multiples of patch_size=8 of CaiT.*32 x 36'),
        (
            'swin',
            dict(),
            (24, 32),
            r'window_size=4 of SwinTransformer.*stage 2.*24 x 32 pixels give 3 x 4.*pad_small_map',
        ),
        ('swin', dict(), (32, 12), r'window_size=4 of SwinTransformer.*stage 1.*32 x 12 pixels give 8 x 3'),
    ],
)
def test_images_the_backbone_cannot_run_on_are_refused(make_backbone, family, settings, size, message):
    adapter = build_adapter(make_backbone(family, **settings))
    with pytest.raises(ValueError, match=message):
        adapter.check_size(size)
    with pytest.raises(ValueError, match=message):
        adapter.read(torch.randn(1, 3, *size))


@torch.no_grad()
def test_images_the_backbone_can_run_on_are_not_refused(case):
    backbone, images = case
    build_adapter(backbone).check_size(tuple(images.shape[-2:]))


@pytest.mark.parametrize('side', range(8, 72, 4))
def test_swin_refuses_what_the_stock_backbone_would_and_nothing_else(make_backbone, side):
    backbone = make_backbone('swin', window_size=3)
    adapter, images = build_adapter(backbone), torch.randn(1, 3, side, 64)
    try:
        backbone(images)
    except AssertionError:
        with pytest.raises(ValueError, match='window_size=3'):
            adapter.check_size((side, 64))
    else:
        adapter.check_size((side, 64))
    build_adapter(make_backbone('swin', window_size=3, pad_small_map=True)).check_size((side, 64))


def test_a_tap_whose_module_was_not_seen_says_so():
    """As in a compiled backbone that is not one graph; instead of nothing where a tensor is expected."""
    module = nn.Linear(2, 2)
    tap = Tap(module)
    with opened(tap):
        with pytest.raises(RuntimeError, match=r'the hook on Linear saw no output: .* smmix_mm\.CompileBackbone'):
            _ = tap.value
        module(torch.ones(2))
        assert tap.value.shape == (2,)
    assert tap.value is None
