"""Backbones that end in a feature map: tokens, what takes the attention's place, and whole steps."""

import copy
from pathlib import Path

import mmpretrain
import pytest
import reference
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmpretrain.structures import DataSample
from torch import nn

from smmix_mm import functional
from smmix_mm.adapters import build_adapter
from smmix_mm.registry import MODELS
from smmix_mm.structures import Question

CLASSES = 5
GAP = dict(type='mmpretrain.GlobalAveragePooling')
RESNET = dict(
    type='mmpretrain.ResNet_CIFAR', depth=18, stem_channels=8, base_channels=8, num_stages=3, out_indices=(2,)
) | dict(strides=(1, 2, 2), dilations=(1, 1, 1))
CONVNEXT = dict(
    type='mmpretrain.ConvNeXt', arch=dict(depths=[1, 1, 1, 2], channels=[8, 8, 16, 32]), stem_patch_size=1
) | dict(drop_path_rate=0.0)
EDGENEXT = dict(
    type='mmpretrain.EdgeNeXt',
    arch=dict(channels=[8, 16, 24, 32], depths=[1, 1, 1, 2], num_heads=[2, 2, 2, 2]),
)
HORNET = dict(
    type='mmpretrain.HorNet',
    arch=dict(base_dim=16, depths=[1, 1, 1, 2], orders=[2, 2, 2, 2], dw_cfg=[dict(type='DW', kernel_size=7)] * 4),
)
TINYVIT = dict(
    type='mmpretrain.TinyViT',
    arch=dict(channels=[8, 16, 24, 32], num_heads=[1, 1, 2, 2], window_sizes=[4, 4, 4, 2], depths=[1, 1, 1, 1]),
    img_size=(64, 64),
)
MIXER = dict(
    type='mmpretrain.MlpMixer',
    arch=dict(embed_dims=32, num_layers=1, tokens_mlp_dims=8, channels_mlp_dims=16),
    img_size=(32, 48),
    patch_size=8,
)
VIT_ARCH = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)
BEIT = dict(type='mmpretrain.BEiTViT', arch=VIT_ARCH, img_size=32, patch_size=8)
ATTENTION = Question(attention=True, by='model')


def build(backbone, neck=GAP, augments=(), **settings):
    """A classifier with random weights, and statistics of norms that are not those of a fresh one."""
    head = dict(
        type='mmpretrain.LinearClsHead',
        num_classes=CLASSES,
        in_channels=32,
        loss=dict(type='mmpretrain.LabelSmoothLoss', label_smooth_val=0.1, mode='original', num_classes=CLASSES),
    )
    model = MODELS.build(
        dict(
            type='smmix_mm.MixingClassifier',
            backbone=copy.deepcopy(backbone),
            neck=neck,
            head=head,
            train_cfg=dict(augments=list(augments)),
        )
        | settings
    )
    shake(model)
    return model


def shake(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
        for name, buffer in model.named_buffers():
            if name.endswith(('running_mean', 'running_var')):
                buffer.add_(torch.rand_like(buffer), alpha=0.3)


def energy_by_loops(last_map):
    """``(B, h, w)`` of ``(B, C, h, w)``."""
    energy = [
        [[sum(value**2 for value in image[:, row, col].tolist()) for col in range(image.shape[2])] for row in rows]
        for image in last_map
        for rows in [range(image.shape[1])]
    ]
    totals = [sum(sum(row) for row in image) for image in energy]
    return torch.tensor(
        [[[value / total for value in row] for row in image] for image, total in zip(energy, totals, strict=True)]
    )


def last_map_of(model, images):
    """The map before any final norm, and the logits."""
    backbone, seen = model.backbone, []
    last = backbone.stages[-1] if hasattr(backbone, 'stages') else backbone.layer3
    handle = last.register_forward_hook(lambda module, args, output: seen.append(output))
    logits = model.head(model.neck(backbone(images)) if model.with_neck else backbone(images))
    handle.remove()
    return seen[0], logits


def tokens_of(model, last_map):
    tokens = torch.stack(
        [last_map[:, :, row, col] for row in range(last_map.shape[2]) for col in range(last_map.shape[3])]
    )
    tokens = tokens.transpose(0, 1)
    if not hasattr(model.backbone, 'norm3'):
        return tokens
    norm = model.backbone.norm3
    return reference.layer_norm(tokens, norm.weight, norm.bias, norm.eps)


def statistics(model):
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def test_activation_score_is_the_share_of_the_energy():
    maps = torch.randn(3, 6, 4)
    found = functional.activation_score(maps.requires_grad_())
    expected = energy_by_loops(maps.detach().mT.unflatten(2, (2, 3))).flatten(1)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.sum(1), torch.ones(3))
    assert not found.requires_grad
    assert functional.activation_score(maps.double()).dtype == torch.float64


def test_activation_score_in_half_precision_does_not_overflow():
    maps = torch.full((1, 2, 3), 1000.0, dtype=torch.float16)
    assert functional.activation_score(maps).equal(torch.full((1, 2), 0.5))


def test_scores_of_nothing_are_uniform():
    scores = functional.activation_score(torch.stack([torch.zeros(4, 3), torch.eye(4, 3)]))
    assert scores.tolist() == [[0.25] * 4, pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])]
    scores = functional.class_activation_score(torch.tensor([[-2.0, -2.0], [-3.0, 1.0]]))
    assert scores.tolist() == [[0.5, 0.5], [0, 1]]


@pytest.mark.parametrize(('cfg', 'size'), [(RESNET, (16, 24)), (MIXER, (32, 48))])
@torch.no_grad()
def test_mean_tokens_are_what_the_head_classifies(cfg, size):
    model = build(cfg, neck=dict(GAP, dim=1) if cfg is MIXER else GAP).eval()
    images = torch.randn(2, 3, *size)
    features = model.adapter.read(images, attention=True, class_attention=True)
    assert features.grid == model.adapter.grid(images) == (4, 6)
    torch.testing.assert_close(model.head((features.tokens.mean(1),)), model(images))
    energetic = []
    if cfg is MIXER:
        # A LayerNorm puts out the map.
        model.backbone.norm1.register_forward_pre_hook(lambda module, args: energetic.append(args[0].mT))
    last_map = model.backbone(images)[-1]
    assert features.feats[-1].equal(last_map)
    expected = energy_by_loops((energetic or [last_map])[0].reshape(2, 32, 4, 6))
    torch.testing.assert_close(features.attention, expected)
    assert features.class_attention.equal(features.attention)
    assert model.adapter.read(images).attention is None


@pytest.mark.parametrize(
    ('cfg', 'size'),
    [
        (CONVNEXT, (32, 48)),
        (EDGENEXT, (64, 96)),
        (HORNET, (64, 64)),
        (TINYVIT, (64, 64)),
    ],
    ids=lambda value: value['type'].split('.')[1] if isinstance(value, dict) else '',
)
@torch.no_grad()
def test_tokens_of_pooled_maps_are_those_of_the_map(cfg, size):
    """Pooled before the final norm or not; the stock output is the same, and attention is the energy before it."""
    images, found = torch.randn(2, 3, *size), []
    for pooled in (True, False):
        torch.manual_seed(1)
        backbone = MODELS.build(dict(cfg, gap_before_final_norm=pooled))
        shake(backbone)
        backbone.eval()
        features = build_adapter(backbone).read(images, attention=True)
        expected = backbone(images)
        assert all(one.equal(other) for one, other in zip(features.feats, expected, strict=True))
        found.append(features)
    torch.testing.assert_close(found[0].tokens, found[1].feats[-1].flatten(2).mT, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[0].tokens, found[1].tokens, rtol=1e-4, atol=1e-4)
    assert found[0].grid == found[1].feats[-1].shape[2:]
    torch.testing.assert_close(found[0].attention, found[1].attention)
    spread = found[0].attention.flatten(1)
    assert (spread.max(1).values > 1.05 * spread.min(1).values).all()


@torch.no_grad()
def test_tokens_of_xcit(make_samples):
    """Those of the map that the backbone puts out if it is asked for one; the energy is that before the norm."""
    cfg = dict(type='mmpretrain.XCiT', img_size=32, patch_size=8, embed_dims=32, depth=2, num_heads=2, tokens_norm=True)
    model = build(cfg, None, [dict(type='smmix_mm.SMMix', side_ratio=0.5)])
    model.eval()
    backbone, images, seen = model.backbone, torch.randn(2, 3, 32, 32), []
    features = model.adapter.read(images, attention=True)
    backbone.norm.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    assert backbone(images)[0].equal(features.feats[0])
    backbone.out_type = 'featmap'
    tokens = backbone(images)[0].flatten(2).mT
    backbone.out_type = 'cls_token'
    torch.testing.assert_close(features.attention, energy_by_loops(seen[0][:, 1:].mT.unflatten(2, (4, 4))))
    torch.testing.assert_close(features.tokens, tokens)
    assert features.grid == (4, 4)
    assert model.adapter.stride == (8, 8)
    with torch.enable_grad():
        losses = model.train().loss(images, make_samples([0, 1]))
        sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(('cfg', 'neck', 'side'), [(RESNET, GAP, 16), (CONVNEXT, None, 32)], ids=['resnet', 'convnext'])
@pytest.mark.parametrize('batch', [1, 3])
def test_a_training_step_equals_one_by_loops(make_samples, cfg, neck, side, batch):
    """Losses, the gradients of all parameters, and the statistics of the norms."""
    model = build(cfg, neck, [dict(type='smmix_mm.SMMix', side_ratio=0.5)]).double().train()
    other, labels = copy.deepcopy(model), [0, 3, 1][:batch]
    images = torch.randn(batch, 3, side, side).double()
    losses = model.loss(images.clone(), make_samples(labels))

    one_hot = torch.eye(CLASSES).double()[labels]
    with torch.no_grad():
        last_map, unmixed_logits = last_map_of(other.eval(), images)
    other.train()
    mixed, mask = reference.max_min_mix(images, energy_by_loops(last_map), (2, 2))
    last_map, logits = last_map_of(other, mixed)
    inside, outside = reference.region_means(tokens_of(other, last_map), mask)
    fine = reference.cross_entropy(other.region_head(inside), one_hot.flip(0), 0.1)
    fine = (fine + reference.cross_entropy(other.region_head(outside), one_hot, 0.1)) / 2
    expected = dict(
        loss_cls=reference.cross_entropy(logits, reference.mix_pairs(one_hot, 0.25), 0.1),
        loss_fine=fine,
        loss_con=reference.consistency(logits, reference.expected_probabilities(unmixed_logits, 0.25, 'logits')),
    )
    assert list(losses) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(losses[name].double(), value, rtol=1e-5, atol=1e-6)
    sum(losses.values()).backward()
    sum(expected.values()).backward()
    for found, wanted in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(found.grad, wanted.grad, rtol=1e-4, atol=1e-6)
    for found, wanted in zip(model.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(found, wanted)


def test_the_motivation_pass_changes_nothing():
    """Neither statistics nor modes nor random state; nor does building an adapter."""
    model = build(RESNET, augments=[dict(type='smmix_mm.SMMix')]).train()
    model.backbone.layer1.eval()
    images = torch.randn(2, 3, 16, 16)

    def state():
        return statistics(model), [module.training for module in model.modules()], torch.get_rng_state()

    before = state()
    model.motivate(Question(attention=True, logits=True, scale=0.5, by='model'), images)
    build_adapter(model.backbone)
    after = state()
    assert all(after[0][name].equal(value) for name, value in before[0].items())
    assert after[1] == before[1]
    assert after[2].equal(before[2])


def test_backbones_that_prepare_for_evaluation_are_evaluated():
    """TinyViT keeps a tensor of its weights there; the motivation follows the weights, of a teacher too."""
    model = build(TINYVIT, None, [dict(type='smmix_mm.SMMix')]).train()
    images, found = torch.randn(2, 3, 64, 64), []
    for _ in range(2):
        found.append(model.motivate(ATTENTION, images).attention)
        assert found[-1].equal(copy.deepcopy(model).eval().adapter.read(images, attention=True).attention)
        shake(model.backbone)
    assert not found[0].equal(found[1])


def test_class_activation_is_the_map_of_the_predicted_class():
    """`CAM <https://arxiv.org/abs/1512.04150>`_: the classifier's row of that class at every place."""
    model = build(RESNET, augments=[dict(type='smmix_mm.SMMix', score='class_activation')])
    images = torch.randn(3, 3, 16, 16)
    (question,) = model.mixing.methods[0].questions
    found = model.motivate(question, images).attention
    with torch.no_grad():
        last_map, logits = last_map_of(model.eval(), images)
    assert found.shape == (3, 4, 4)
    for image, (places, of_classes) in enumerate(zip(last_map, logits, strict=True)):
        weight = model.head.fc.weight[of_classes.argmax()]
        scores = sum(weight[channel] * places[channel] for channel in range(32))
        scores = scores - scores.min()
        torch.testing.assert_close(found[image], scores.detach() / scores.sum().item(), rtol=1e-4, atol=1e-6)


def test_activation_instead_of_attention(make_classifier, make_samples):
    """In a backbone that has both; with TransMix's labels, which read the attention all the same."""
    augments = dict(type='smmix_mm.SMMix', score='activation', label_reconstruction='transmix')
    model, images = make_classifier('vit', augments=augments), torch.randn(3, 3, 32, 32)
    (question,) = model.mixing.methods[0].questions
    tokens = model.eval().adapter.read(images).tokens
    found = model.motivate(question, images).attention
    torch.testing.assert_close(found, energy_by_loops(tokens.detach().mT.unflatten(2, (4, 4))))
    losses = model.train().loss(images, make_samples([0, 1, 2]))
    assert all(value.isfinite() for value in losses.values())


def test_attention_by_name_is_the_default(make_classifier):
    images = torch.randn(2, 3, 32, 32)
    model = make_classifier('pvt', augments=dict(type='smmix_mm.SMMix', score='attention'))
    by_name, by_default = (
        model.motivate(question, images).attention for question in (*model.mixing.methods[0].questions, ATTENTION)
    )
    assert by_name.equal(by_default)


@pytest.mark.parametrize('score', [None, 'activation', 'class_activation'])
def test_a_teacher_gives_any_score(score):
    """On the grid of the model under training."""
    teacher, images = build(CONVNEXT, None).eval(), torch.randn(2, 3, 32, 32)
    model = build(RESNET, augments=[dict(type='smmix_mm.SMMix', score=score)], teacher=teacher)
    (question,) = model.mixing.methods[0].questions
    found = model.motivate(question, images)
    assert found.grid == found.attention.shape[1:] == (8, 8)
    by_itself = teacher.motivate(Question(attention=True, score=score, by='model'), images).attention
    torch.testing.assert_close(found.attention, functional.resample_scores(by_itself, (8, 8)))
    if score != 'class_activation':
        assert by_itself.equal(teacher.adapter.read(images, attention=True).attention)


class Made(nn.Module):
    """A backbone that puts out what a function makes of the map of an 8 x 8 convolution."""

    def __init__(self, make):
        super().__init__()
        self.layer, self.make = nn.Conv2d(3, 4, 8, stride=8), make

    def forward(self, x):
        return self.make(self.layer(x))


def fail(last_map):
    raise RuntimeError(f'no such thing as {last_map.ndim} axes')


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda x: x, r'Made returns a Tensor, but a tuple .* register an adapter'),
        (lambda x: (x.mean((2, 3)),), r'Made returns a vector of shape \(1, 4\).*set out_type=.featmap'),
        (lambda x: (x, [x, x.flatten(2)]), r'Made returns several tensors for its last stage'),
        (lambda x: (x.mean((2, 3), keepdim=True),), r'Made gives a map of one token for 224 x 224 pixels'),
        (lambda x: (x[:, :, 1:],), r'Made gives 27 x 28 tokens for 224 x 224 pixels: it pads or crops'),
        (lambda x: (x.flatten(2)[:, :, 1:],), r'Made returns 783 tokens of 4 channels for 224 x 224.*featmap'),
        (fail, r'Made cannot run on images of 224 x 224 pixels \(no such thing as 4 axes\); .*register an adapter'),
    ],
)
def test_backbones_without_a_map_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        build_adapter(Made(make))


@pytest.mark.parametrize(
    ('cfg', 'message'),
    [
        (dict(type='mmpretrain.Conformer', arch='tiny'), 'Conformer returns several tensors for its last stage'),
        (dict(type='mmpretrain.LeNet5', num_classes=10), r'LeNet5 classifies images itself \(num_classes=10\).*leave'),
        (
            BEIT | dict(out_type='cls_token'),
            "BEiTViT needs tokens behind a norm.*'cls_token' and final_norm=False; set",
        ),
        (dict(type='mmpretrain.ViTEVA02', arch=VIT_ARCH, img_size=32, out_type='raw'), "ViTEVA02 .* out_type='raw'"),
        (CONVNEXT | dict(out_indices=(0, 1)), r'out_indices of ConvNeXt .* last stage, 3, .*\(0, 1\)'),
        (CONVNEXT | dict(norm_cfg=dict(type='BN')), 'norm_cfg of ConvNeXt makes the final norm BatchNorm2d'),
    ],
)
def test_stock_backbones_that_cannot_be_read_are_refused(cfg, message):
    with pytest.raises(ValueError, match=message):
        build_adapter(MODELS.build(dict(cfg)))


def test_a_size_is_tried_once():
    backbone, sizes = Made(lambda x: (x,)), []
    adapter = build_adapter(backbone)
    backbone.register_forward_hook(lambda module, args, output: sizes.append(tuple(args[0].shape)))
    for _ in range(2):
        adapter.check_size((16, 32))
        adapter.check_size((224, 224))
    assert sizes == [(1, 3, 16, 32)]
    adapter.read(torch.zeros(5, 3, 16, 32))
    assert sizes == [(1, 3, 16, 32), (5, 3, 16, 32)]


def test_maps_that_do_not_follow_the_size_are_refused():
    adapter = build_adapter(Made(lambda x: (nn.functional.adaptive_avg_pool2d(x, 7),)))
    with pytest.raises(ValueError, match=r'Made gives 7 x 7 tokens for 64 x 64 pixels: it pads or crops'):
        adapter.check_size((64, 64))


def test_a_backbone_of_one_size_names_it(make_samples):
    model = build(MIXER, dict(GAP, dim=1), [dict(type='smmix_mm.SMMix', motivation_scale=0.5)])
    with pytest.raises(ValueError, match=r'MlpMixer cannot run on images of 16 x 24 pixels .*motivation_scale=1'):
        model.loss(torch.randn(2, 3, 32, 48), make_samples([0, 1]))


def test_sizes_that_the_stride_does_not_divide_are_refused(make_samples):
    model = build(RESNET, augments=[dict(type='smmix_mm.SMMix')])
    with pytest.raises(ValueError, match=r'multiples of 4 x 4 pixels, the stride of ResNet_CIFAR.*18 x 16'):
        model.loss(torch.randn(2, 3, 18, 16), make_samples([0, 1]))


def test_scores_that_a_model_cannot_give_are_refused():
    smmix = dict(type='smmix_mm.SMMix')
    with pytest.raises(ValueError, match=r"score of SMMix has to be one of \(None, 'attention', .*'saliency'"):
        build(RESNET, augments=[dict(smmix, score='saliency')])
    with pytest.raises(ValueError, match=r"score='attention' of SMMix needs .* ResNet_CIFAR is not"):
        build(RESNET, augments=[dict(smmix, score='attention')])
    neck = dict(type='mmpretrain.GeneralizedMeanPooling')
    with pytest.raises(ValueError, match=r"score='class_activation' of SMMix .*model.*GeneralizedMeanPooling"):
        build(RESNET, neck, augments=[dict(smmix, score='class_activation')])
    teacher = build(RESNET, neck)
    with pytest.raises(ValueError, match=r"score='class_activation' of SMMix .*teacher.*GeneralizedMeanPooling"):
        build(RESNET, augments=[dict(smmix, score='class_activation')], teacher=teacher)
    with pytest.raises(ValueError, match=r'ResNet_CIFAR.*num_layers=0'):
        build(RESNET, augments=[dict(type='smmix_mm.AutoMix')])


MODELS_OF_MMPRETRAIN = Path(mmpretrain.__file__).parent / '.mim/configs/_base_/models'


@pytest.mark.parametrize(
    ('name', 'changes', 'side'),
    [
        ('resnet18_cifar', {}, 16),
        ('mobilenet_v3/mobilenet_v3_small_imagenet', {}, 64),
        ('convnext/convnext-tiny', {'backbone.arch': 'atto', 'head.in_channels': 320}, 64),
        ('poolformer/poolformer_s12', {}, 64),
        ('shufflenet_v2_1x', {}, 64),
    ],
)
def test_stock_configs_train_by_two_changes(name, changes, side):
    """The classifier's type and train_cfg; SMMix, TransMix and TokenMix in turn, the model's copy as teacher."""
    cfg = Config.fromfile(MODELS_OF_MMPRETRAIN / f'{name}.py')
    cfg.merge_from_dict({f'model.{key}': value for key, value in changes.items()})
    cfg = cfg.model
    cfg.pop('train_cfg', None)
    teacher = MODELS.build(cfg)
    cfg.type = 'smmix_mm.MixingClassifier'
    cfg.train_cfg = dict(
        augments=[
            dict(type='smmix_mm.SMMix', motivated_by='model'),
            dict(type='smmix_mm.TransMix'),
            dict(type='smmix_mm.TokenMix', patch_size=side // 4, extra_tokens=2),
        ]
    )
    model = MODELS.build(cfg | dict(teacher=teacher))
    assert type(model.adapter).family in (nn.Module, type(model.backbone))
    model.train()
    optimiser = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01))
    samples = [DataSample().set_gt_label(label) for label in (0, 1, 2)]
    for index in range(3):
        model.mixing.probs = [float(index == other) for other in range(4)]
        losses = model.train_step(dict(inputs=torch.randn(3, 3, side, side), data_samples=samples), optimiser)
        assert all(value.isfinite() for value in losses.values())
        assert ('loss_fine' in losses) == (index == 0)
