import copy
import gc
import weakref

import pytest
import reference
import torch
import torch.nn.functional as F
from mmpretrain.models.backbones import ResNet, VisionTransformer
from torch import nn
from torch.overrides import TorchFunctionMode

from smmix_mm.adapters import PVTAdapter, VisionTransformerAdapter, build_adapter
from smmix_mm.models import PVT

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
}


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


def attention_by_hand(backbone, images):
    """Explicit softmax on the input of the last block's attention, with that block's own projection weights."""
    if isinstance(backbone, PVT):
        last = backbone.block4[-1].attn
        weights = [torch.cat([last.q.weight, last.kv.weight]), [last.q.bias, last.kv.bias]]
        weights[1] = torch.zeros(len(weights[0])) if last.q.bias is None else torch.cat(weights[1])
        extra = 1
    else:
        last = backbone.layers[-1].attn
        weights = [last.qkv.weight, torch.zeros(len(last.qkv.weight)) if last.qkv.bias is None else last.qkv.bias]
        extra = int(backbone.with_cls_token)
    with torch.no_grad():
        inputs = input_of(last, lambda: backbone(images))
    return reference.block_attention(inputs, *weights, heads=last.num_heads, num_extra_tokens=extra)


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


def test_attention_equals_an_explicit_softmax(case):
    backbone, images = case
    adapter = build_adapter(backbone)
    expected = attention_by_hand(backbone, images)
    with torch.no_grad():
        features = adapter.read(images, attention=True)
    assert features.attention.shape == (2, *features.grid)
    torch.testing.assert_close(features.attention.flatten(1).double(), expected, rtol=1e-4, atol=0)
    # Far enough from uniform for the comparison to mean something.
    assert expected.std(1).min() > 0.05 * expected.mean()


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


@pytest.mark.parametrize(('family', 'blocks'), [('vit', 3), ('pvt', 6)])
@torch.no_grad()
def test_all_blocks_keep_fused_attention(make_backbone, family, blocks):
    """The last one included; one softmax is taken beside it, and only if the attention is asked for."""
    adapter = build_adapter(make_backbone(family))
    for attention in (False, True):
        with CountAttention() as count:
            features = adapter.read(torch.randn(1, 3, 32, 32), attention=attention)
        assert (count.fused, count.softmax) == (blocks, int(attention))
        assert (features.attention is not None) == attention


@pytest.mark.parametrize('family', ['vit', 'pvt'])
def test_gradients_flow_through_feats_and_tokens(make_backbone, family):
    """To the first parameter of the backbone, as from the plain one."""
    backbone, images = make_backbone(family), torch.randn(1, 3, 32, 32)
    weight = backbone.patch_embed.projection.weight if family == 'vit' else backbone.patch_embed1.proj.weight
    (expected,) = torch.autograd.grad(backbone(images)[0].square().sum(), weight)
    features = build_adapter(backbone).read(images)
    (found,) = torch.autograd.grad(features.feats[0].square().sum(), weight, retain_graph=True)
    assert torch.equal(found, expected)
    (through_tokens,) = torch.autograd.grad(features.tokens.square().sum(), weight)
    assert through_tokens.abs().min() > 0


@pytest.mark.parametrize('family', ['vit', 'pvt'])
def test_nothing_is_kept_after_a_read(make_backbone, family):
    """No tensor outlives the features that hold it, so no graph outlives its step; also where the backbone fails."""
    backbone = make_backbone(family)
    adapter = build_adapter(backbone)
    last = backbone.layers[-1].attn.qkv if family == 'vit' else backbone.block4[-1].attn.kv
    final = backbone.ln1 if family == 'vit' else backbone.norm
    kept = []
    for module in (last, final):
        module.register_forward_hook(lambda module, args, output: kept.append(weakref.ref(output)))

    features = adapter.read(torch.randn(1, 3, 32, 32), attention=True)
    assert kept[-1]() is not None
    del features
    gc.collect()
    assert len(kept) == 2
    assert [ref() for ref in kept] == [None, None]

    final.register_forward_hook(lambda module, args, output: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        adapter.read(torch.randn(1, 3, 32, 32), attention=True)
    gc.collect()
    assert [ref() for ref in kept[2:]] == [None, None]
    assert not [value for value in vars(adapter).values() if getattr(value, 'is_open', False)]


@pytest.mark.parametrize('family', ['vit', 'pvt'])
def test_runs_beside_the_adapter_leave_nothing_in_it(make_backbone, family):
    backbone = make_backbone(family)
    adapter = build_adapter(backbone)
    backbone(torch.randn(1, 3, 32, 32))
    assert not any(torch.is_tensor(getattr(value, 'value', None)) for value in vars(adapter).values())


@pytest.mark.parametrize('family', ['vit', 'pvt'])
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


def test_unknown_backbones_are_told_what_there_is():
    with pytest.raises(ValueError, match=r'backbone ResNet has no adapter.*PVT, .*VisionTransformer.*ADAPTERS'):
        build_adapter(ResNet(18))


def test_a_family_includes_its_subclasses(vit_arch, pvt_arch):
    class MyViT(VisionTransformer):
        pass

    class MyPVT(PVT):
        pass

    assert type(build_adapter(MyViT(vit_arch, img_size=32, patch_size=8))) is VisionTransformerAdapter
    assert type(build_adapter(MyPVT(pvt_arch, img_size=32))) is PVTAdapter


@pytest.mark.parametrize(
    ('family', 'settings', 'message'),
    [
        ('vit', dict(out_type='raw'), "out_type='raw'.*use out_type='cls_token'"),
        ('vit', dict(final_norm=False), 'final_norm=False.*set final_norm=True'),
        ('vit', dict(final_norm=False, out_type='featmap'), 'final_norm=False.*featmap.*set final_norm=True'),
        ('pvt', dict(out_type='featmap'), "out_type='cls_token'.*'featmap'"),
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
