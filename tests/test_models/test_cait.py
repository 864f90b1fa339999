import copy
import json
from pathlib import Path

import pytest
import reference
import torch
import torch.nn.functional as F
from marks import needs_cpu_float16
from mmengine.registry import DefaultScope
from mmpretrain.models.heads import LinearClsHead
from torch import nn

from smmix_mm.models import CaiT
from smmix_mm.registry import MODELS

LAYOUTS = json.loads((Path(__file__).parents[1] / 'data' / 'checkpoint_layouts.json').read_text())

# Of the tiny backbone at 32 x 32.
GRID = (4, 4)


def plain(backbone, arch, images, grid=GRID):
    """Class token after the final norm."""
    parameters = {name: value.detach().double() for name, value in backbone.state_dict().items()}
    return reference.cait(parameters, arch, grid, images.double())[0][:, 0]


@pytest.mark.parametrize(('arch', 'count'), [('xxs24', 11956264), ('xxs36', 17299720)])
def test_parameter_counts_are_the_published_ones(arch, count):
    """With a classifier of 1000 classes."""
    backbone = CaiT(arch)
    assert sum(p.numel() for p in [*backbone.parameters(), *LinearClsHead(1000, 192).parameters()]) == count


def test_names_and_shapes_are_the_published_ones():
    """Of what is not the classifier."""
    published = {name: shape for name, shape in LAYOUTS['cait_xxs24'].items() if not name.startswith('head.')}
    found = {name: list(value.shape) for name, value in CaiT('xxs24').state_dict().items()}
    assert found == published


@pytest.mark.parametrize('scope', ['mmpretrain', 'mmdet', 'mmseg'])
def test_all_three_libraries_build_it(scope, cait_arch):
    with DefaultScope.overwrite_default_scope(scope):
        backbone = MODELS.build(dict(type='smmix_mm.CaiT', arch=cait_arch, img_size=32))
    assert type(backbone) is CaiT


@torch.no_grad()
def test_forward_equals_a_plain_cait(make_backbone, cait_arch):
    """Explicit softmaxes, heads mixed one by one, in float64."""
    backbone = make_backbone('cait').double()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    (found,) = backbone(images)
    torch.testing.assert_close(found, plain(backbone, cait_arch, images), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('built', [(32, 32), (24, 40)])
@pytest.mark.parametrize('size', [(32, 32), (48, 64), (64, 24), (8, 8)])
@torch.no_grad()
def test_other_sizes_interpolate_the_position_embeddings(make_backbone, cait_arch, built, size):
    backbone, images = make_backbone('cait', built), torch.randn(2, 3, *size)
    expected = plain(backbone, cait_arch, images, grid=(built[0] // 8, built[1] // 8))
    torch.testing.assert_close(backbone(images)[0].double(), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_position_embeddings_of_384_pixels_are_torchs_own_interpolation():
    """From 224. Patch embeddings of zeros leave nothing but position embeddings."""
    backbone, seen = CaiT(dict(embed_dims=6, depth=1, num_heads=2)), []
    nn.init.normal_(backbone.pos_embed)
    nn.init.zeros_(backbone.patch_embed.proj.bias)
    backbone.pos_drop.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    backbone(torch.zeros(1, 3, 384, 384))
    as_map = backbone.pos_embed.transpose(1, 2).unflatten(2, (14, 14))
    resized = F.interpolate(as_map, size=(24, 24), mode='bicubic', align_corners=False).flatten(2).transpose(1, 2)
    torch.testing.assert_close(seen[0], resized, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('size', [(64, 64), (32, 64), (16, 16)])
def test_checkpoints_of_another_size_are_resized(make_backbone, size):
    found = make_backbone('cait').state_dict()
    backbone = make_backbone('cait', img_size=size)
    backbone.load_state_dict(found)
    resized = reference.resize_bicubic(found['pos_embed'][0], GRID, (size[0] // 8, size[1] // 8))
    torch.testing.assert_close(backbone.pos_embed[0], resized, rtol=1e-5, atol=1e-5)
    others = {name for name in found if name != 'pos_embed'}
    assert all(found[name].equal(backbone.state_dict()[name]) for name in others)


@pytest.mark.parametrize('size', [(32, 32), (32, 48)])
def test_checkpoints_of_its_own_kind_load_unchanged(make_backbone, size):
    """Below a prefix too, as part of a classifier."""
    one, other = make_backbone('cait', size), make_backbone('cait', size)
    weights = nn.ModuleDict(dict(backbone=one)).state_dict()
    assert nn.ModuleDict(dict(backbone=other)).load_state_dict(weights) == ([], [])
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize(('size', 'other'), [((64, 96), (96, 64)), ((32, 128), (64, 64)), ((64, 64), (32, 128))])
def test_grids_are_told_by_the_checkpoint_and_refused_where_they_are_not(make_backbone, size, other):
    """As many tokens in another grid are resized to it, not taken over as they are."""
    checkpoint, model = make_backbone('cait', img_size=size).state_dict(), make_backbone('cait', img_size=other)
    assert checkpoint['pos_embed'].shape == model.pos_embed.shape
    model.load_state_dict(checkpoint)
    grids = [(side[0] // 8, side[1] // 8) for side in (size, other)]
    as_map = checkpoint['pos_embed'].transpose(1, 2).unflatten(2, grids[0])
    expected = F.interpolate(as_map, size=grids[1], mode='bicubic', align_corners=False).flatten(2).transpose(1, 2)
    torch.testing.assert_close(model.pos_embed, expected)
    if size != (64, 64):
        message = r'pos_embed has \d+ tokens, but its file does not give their grid.*img_size'
        with pytest.raises(ValueError, match=message):
            # Of the same size, too: nobody can tell.
            make_backbone('cait', img_size=size).load_state_dict(dict(checkpoint))


def gradients(backbone, images):
    backbone.zero_grad()
    torch.manual_seed(3)
    backbone(images)[0].square().sum().backward()
    return {name: parameter.grad.clone() for name, parameter in backbone.named_parameters()}


def test_gradient_checkpointing_changes_no_gradient(make_backbone):
    """With dropout and stochastic depth, whose draws have to be repeated."""
    settings = dict(drop_rate=0.2, drop_path_rate=0.4)
    backbone, images = make_backbone('cait', **settings).train(), torch.randn(4, 3, 32, 32)
    frugal = make_backbone('cait', with_cp=True, **settings).train()
    frugal.load_state_dict(backbone.state_dict())
    expected, found = gradients(backbone, images), gradients(frugal, images)
    assert all(value.abs().sum() > 0 for value in expected.values())
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_gradient_checkpointing_runs_the_blocks_twice(make_backbone):
    """Otherwise it saves no memory; a pass without gradients runs them once."""
    backbone, runs = make_backbone('cait', with_cp=True), []
    for block in (backbone.blocks[1], backbone.blocks_token_only[1]):
        block.register_forward_pre_hook(lambda *args: runs.append(True))
    backbone(torch.randn(1, 3, 32, 32))[0].sum().backward()
    assert len(runs) == 4
    with torch.no_grad():
        backbone(torch.randn(1, 3, 32, 32))
    assert len(runs) == 6


def test_stochastic_depth_is_the_same_in_all_self_attention_blocks(make_backbone):
    backbone = make_backbone('cait', drop_path_rate=0.3)
    rates = [block.drop_path.drop_prob for block in backbone.blocks]
    assert rates == [0.3] * 3
    assert all(type(rate) is float for rate in rates)  # torch.compile stumbles over others
    assert not any(hasattr(block, 'drop_path') for block in backbone.blocks_token_only)


def test_stochastic_depth_drops_a_branch_of_a_sample_or_rescales_it(make_backbone):
    """Each of the two branches of a block by itself; the kept ones are divided by the rate at which they are kept."""
    block = make_backbone('cait', drop_path_rate=0.5).blocks[0].train()
    x, outcomes = torch.randn(1, 16, 32).expand(64, -1, -1), []
    for output in block(x):
        for attention in (0, 2):
            between = torch.addcmul(x[0], block.gamma_1, attention * block.attn(block.norm1(x[:1]))[0])
            for perceptron in (0, 2):
                expected = torch.addcmul(between, block.gamma_2, perceptron * block.mlp(block.norm2(between)))
                if torch.allclose(output, expected, rtol=1e-4, atol=1e-4):
                    outcomes.append((attention, perceptron))
    assert len(outcomes) == 64
    assert set(outcomes) == {(0, 0), (0, 2), (2, 0), (2, 2)}


def test_dropout_acts_in_training_alone_and_not_in_class_attention(make_backbone):
    backbone, images = make_backbone('cait', drop_rate=0.5), torch.randn(1, 3, 32, 32)
    backbone.train()
    assert not torch.equal(backbone(images)[0], backbone(images)[0])
    for block in backbone.blocks_token_only:
        inputs = torch.randn(2, 16, 32), torch.randn(2, 1, 32)
        assert torch.equal(block(*inputs), block(*inputs))
    backbone.eval()
    assert torch.equal(backbone(images)[0], backbone(images)[0])


def test_initialisation_is_the_published_one():
    """Truncated normal 0.02 for linear layers, class token and position embeddings; norms 1 and 0; torch's convs."""
    arch = dict(embed_dims=96, depth=2, num_heads=8)
    backbone = CaiT(arch, img_size=64, layer_scale_init_value=1e-3)
    for parameter in backbone.parameters():
        nn.init.constant_(parameter, 7)
    backbone.init_weights()
    norms = {f'{name}.' for name, module in backbone.named_modules() if isinstance(module, nn.LayerNorm)}
    for name, value in backbone.state_dict().items():
        owner, kind = name.rpartition('.')[0] + '.', name.rpartition('.')[2]
        if kind.startswith('gamma_'):
            assert (value == torch.tensor(1e-3)).all(), name
        elif owner in norms:
            assert (value == (1 if kind == 'weight' else 0)).all(), name
        elif owner == 'patch_embed.proj.':
            bound = (3 * 16 * 16) ** -0.5
            assert value.abs().max() <= bound, name
            assert value.std().item() == pytest.approx(bound / 3**0.5, rel=2.5 / value.numel() ** 0.5), name
        elif kind == 'bias':
            assert (value == 0).all(), name
        else:
            tolerance = 5 * 0.02 / (2 * value.numel()) ** 0.5
            assert value.std().item() == pytest.approx(0.02, abs=tolerance), name
            assert abs(value.mean().item()) < 5 * 0.02 / value.numel() ** 0.5, name


@pytest.mark.parametrize('published_init', [True, False])
def test_classifiers_leave_the_layer_scale_what_it_starts_from(make_classifier, published_init):
    model = make_classifier('cait', published_init=published_init)
    model.init_weights()
    gammas = {name: value for name, value in model.named_parameters() if 'gamma_' in name}
    assert len(gammas) == 10
    assert all((value == torch.tensor(1e-5)).all() for value in gammas.values())


@pytest.mark.parametrize('size', [(32, 32), (48, 48)])
def test_init_cfg_comes_after_the_published_initialisation(make_backbone, make_classifier, tmp_path, size):
    """A classifier's checkpoint, of another size too, is what the weights are in the end."""
    classifier, path = make_classifier('cait'), str(tmp_path / 'cait.pth')
    torch.save(dict(state_dict=classifier.state_dict()), path)
    backbone = make_backbone('cait', size, init_cfg=dict(type='Pretrained', checkpoint=path))
    backbone.init_weights()
    expected = copy.deepcopy(backbone)
    expected.load_state_dict(classifier.backbone.state_dict())
    assert all(value.equal(expected.state_dict()[name]) for name, value in backbone.state_dict().items())


def test_half_a_checkpoint_is_refused(make_backbone, tmp_path):
    """mmengine would have logged it and gone on."""
    weights = make_backbone('cait').state_dict()
    del weights['blocks.1.attn.proj_w.bias']
    torch.save(dict(model=weights), tmp_path / 'half.pth')
    backbone = make_backbone('cait', init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'half.pth')))
    with pytest.raises(ValueError, match=r'half\.pth does not fit CaiT:\n.*"blocks\.1\.attn\.proj_w\.bias"'):
        backbone.init_weights()


@pytest.mark.parametrize(
    ('training', 'size', 'backend'),
    [
        (True, (48, 64), 'eager'),
        pytest.param(True, (48, 64), 'aot_eager', marks=pytest.mark.slow),
        pytest.param(False, (32, 32), 'aot_eager', marks=pytest.mark.slow),
    ],
)
def test_it_compiles_into_one_graph(make_backbone, training, size, backend):
    """In training with dropout and stochastic depth."""
    backbone = make_backbone('cait', drop_rate=0.1, drop_path_rate=0.2).train(training)
    images, outputs = torch.randn(2, 3, *size), []
    for forward in (backbone, torch.compile(backbone, backend=backend, fullgraph=True)):
        torch.manual_seed(5)
        outputs.append(forward(images)[0])
    torch.testing.assert_close(*outputs)
    outputs[1].sum().backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())


@pytest.mark.parametrize('dtype', [torch.bfloat16, pytest.param(torch.float16, marks=needs_cpu_float16)])
def test_autocast_keeps_what_is_added_up_in_full_precision(make_backbone, dtype):
    """All blocks pass on float32, and the output stays close."""
    backbone, images, dtypes = make_backbone('cait'), torch.randn(2, 3, 32, 32), []
    (expected,) = backbone(images)
    for block in (*backbone.blocks, *backbone.blocks_token_only):
        block.register_forward_hook(lambda module, args, output: dtypes.append(output.dtype))
    with torch.autocast('cpu', dtype):
        (found,) = backbone(images)
    assert dtypes == [torch.float32] * 5
    torch.testing.assert_close(found.float(), expected, rtol=0.1, atol=0.1)
    found.float().square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in backbone.parameters())


@torch.no_grad()
def test_channels_last_images_give_the_same(make_backbone):
    """In the memory format of tokens that follow each other, for either format of the images."""
    backbone, images, seen = make_backbone('cait'), torch.randn(2, 3, 32, 48), []
    backbone.blocks[-1].register_forward_hook(lambda module, args, output: seen.append(output))
    expected = backbone(images)[0]
    found = backbone.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert all(tokens.is_contiguous() for tokens in seen)


@torch.no_grad()
def test_copies_are_their_own(make_backbone):
    """As an EMA's."""
    backbone, images = make_backbone('cait', (32, 48)).eval(), torch.randn(1, 3, 32, 32)
    before, twin = backbone(images)[0], copy.deepcopy(backbone)
    twin.load_state_dict({name: value * 1.5 for name, value in make_backbone('cait', (48, 48)).state_dict().items()})
    assert torch.equal(backbone(images)[0], before)
    assert not torch.equal(twin(images)[0], before)


@pytest.mark.parametrize('frozen_stages', [-1, 0, 2, 3, 4, 5])
def test_frozen_blocks_are_not_trained_and_stay_in_evaluation_mode(make_backbone, frozen_stages):
    """Three blocks of self-attention, then two of class attention."""
    backbone = make_backbone('cait', frozen_stages=frozen_stages, drop_rate=0.5, drop_path_rate=0.5)
    blocks = ['blocks.0', 'blocks.1', 'blocks.2', 'blocks_token_only.0', 'blocks_token_only.1']
    frozen = {*blocks[: max(frozen_stages, 0)]}
    if frozen_stages > 0:
        frozen |= {'patch_embed', 'pos_embed', 'pos_drop'}
    if frozen_stages > 3:
        frozen.add('cls_token')
    if frozen_stages == 5:
        frozen.add('norm')

    def is_frozen(name):
        return any(f'{name}.'.startswith(f'{part}.') for part in frozen)

    for name, parameter in backbone.named_parameters():
        assert parameter.requires_grad != is_frozen(name), name
    for mode in (True, False, True):
        assert backbone.train(mode) is backbone
        parts = [(name, part) for name, part in backbone.named_modules() if not list(part.children())]
        assert all(part.training == (mode and not is_frozen(name)) for name, part in parts)


@pytest.mark.parametrize(
    ('arch', 'message'),
    [
        (dict(embed_dims=30, depth=1, num_heads=4), 'embed_dims of a CaiT arch.*multiple of num_heads.*30 and 4'),
        (dict(embed_dims=32, depth=0, num_heads=4), 'depth of a CaiT arch.*above 0.*0'),
        (dict(embed_dims=32, depth=1, num_heads=4, class_depth=0), 'class_depth of a CaiT arch.*above 0.*0'),
        (dict(embed_dims=32, num_heads=4), r"arch of CaiT needs the keys .*'depth'.*\['embed_dims', 'num_heads'\]"),
        (dict(embed_dims=32, depth=1, heads=4), "arch of CaiT needs the keys .*'num_heads'.*'heads'"),
        ('tiny', "arch of CaiT.*'xxs24', 'xxs36'.*'tiny'"),
    ],
)
def test_bad_archs_are_errors(arch, message):
    with pytest.raises(ValueError, match=message):
        CaiT(arch, img_size=32)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(img_size=225), 'multiples of patch_size=16 of CaiT.*225 x 225'),
        (dict(img_size=(224, 0)), 'multiples of patch_size=16 of CaiT.*224 x 0'),
        (dict(patch_size=0), 'patch_size of CaiT.*above 0.*0'),
        (dict(patch_size=(16, 16)), r'patch_size of CaiT.*number of pixels.*\(16, 16\)'),
        (dict(drop_rate=1.0), r'drop_rate of CaiT.*\[0, 1\).*1.0'),
        (dict(drop_path_rate=-0.1), r'drop_path_rate of CaiT.*\[0, 1\).*-0.1'),
        (dict(frozen_stages=27), 'frozen_stages of CaiT.*between -1 and 26.*27'),
        (dict(frozen_stages=25, out_type='featmap'), 'frozen_stages of CaiT.*between -1 and 24.*25'),
        (dict(layer_scale_init_value=0), 'layer_scale_init_value of CaiT.*above 0.*0'),
    ],
)
def test_bad_settings_are_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        CaiT(**settings)


@pytest.mark.parametrize('size', [(36, 32), (32, 4)])
def test_images_of_half_patches_are_refused(make_backbone, size):
    with pytest.raises(ValueError, match=f'multiples of patch_size=8 of CaiT, but got {size[0]} x {size[1]}'):
        make_backbone('cait')(torch.randn(1, 3, *size))


def test_settings_stay_as_the_user_wrote_them(cait_arch):
    before = copy.deepcopy(cait_arch)
    CaiT(cait_arch, img_size=32)
    assert cait_arch == before


@torch.no_grad()
@pytest.mark.parametrize('size', [(32, 32), (48, 64), (30, 57)])
def test_maps_are_the_tokens_of_its_blocks(make_backbone, size):
    """As in the classifier with the same weights. Images of any size are padded at the right and bottom."""
    classifier = make_backbone('cait').eval()
    dense = make_backbone('cait', out_type='featmap', out_indices=(0, 2)).eval()
    dense.load_state_dict(classifier.state_dict())
    images, seen = torch.randn(2, 3, *size), []
    grid = tuple(-(-side // 8) for side in size)
    padded = torch.zeros(2, 3, *(8 * side for side in grid))
    padded[:, :, : size[0], : size[1]] = images
    for index in (0, 2):
        classifier.blocks[index].register_forward_hook(lambda module, args, output: seen.append(output))
    classifier(padded)
    maps = dense(images)
    assert [tuple(one.shape) for one in maps] == [(2, 32, *grid)] * 2
    for one, tokens in zip(maps, seen, strict=True):
        torch.testing.assert_close(one.flatten(2).mT, tokens)


def test_maps_come_from_four_blocks_and_recompute(make_backbone):
    assert CaiT('xxs24', out_type='featmap').out_indices == (5, 11, 17, 23)
    assert CaiT('xxs36', out_type='featmap').out_indices == (8, 17, 26, 35)
    gradients = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        dense = make_backbone('cait', out_type='featmap', with_cp=with_cp).train()
        assert dense.out_indices == (0, 1, 2)
        sum(one.square().sum() for one in dense(torch.ones(1, 3, 32, 32))).backward()
        gradients.append([weight.grad for weight in dense.parameters()])
    assert all(one.equal(other) for one, other in zip(*gradients, strict=True))


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(out_type='raw'), "out_type of CaiT has to be .*'raw'"),
        (dict(out_indices=(1,)), "out_indices.*out_type='featmap'"),
        (dict(out_type='featmap', out_indices=(0, 3)), r'out_indices of CaiT have to be between 0 and 2.*\(0, 3\)'),
    ],
)
def test_bad_outputs_are_refused(make_backbone, settings, message):
    with pytest.raises(ValueError, match=message):
        make_backbone('cait', **settings)


def test_a_backbone_of_maps_is_no_classifier(make_classifier):
    with pytest.raises(ValueError, match="CaiT needs out_type='cls_token' to be trained as a classifier"):
        make_classifier('cait', backbone=dict(out_type='featmap'))
