import copy
import itertools
import random
from dataclasses import replace

import numpy as np
import pytest
import reference
import torch
from conftest import backbone_cfg, head_cfg, neck_cfg
from mmengine.optim import OptimWrapper
from mmpretrain.models.classifiers import ImageClassifier
from mmpretrain.models.utils import ClsDataPreprocessor
from mmpretrain.structures import DataSample
from torch import nn

from smmix_mm.mixing import step_streams
from smmix_mm.models import MixingClassifier
from smmix_mm.structures import MixedBatch, Question

BOTH = Question(attention=True, logits=True)
MIXUP = dict(type='mmpretrain.Mixup', alpha=0.8)
CUTMIX = dict(type='mmpretrain.CutMix', alpha=1.0)
LABELS = [0, 3, 1, 4, 2]
# The references of cait's and swin's attention are those of test_adapters.py.
EXPLICIT_ATTENTION = pytest.mark.parametrize('family', ['vit', 'pvt'])
FAMILIES = pytest.mark.parametrize('family', ['vit', 'pvt', 'cait', 'swin'])


def smmix(**settings):
    return dict(type='smmix_mm.SMMix', **settings)


def gradients(model, losses):
    model.zero_grad()
    sum(losses.values()).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def final_norm(model):
    return model.backbone.ln1 if hasattr(model.backbone, 'ln1') else model.backbone.norm


def run_and_see(module, run):
    """What a module puts out while ``run()`` runs, and what ``run`` returns."""
    seen = []
    handle = module.register_forward_hook(lambda module, args, output: seen.append((args[0], output)))
    result = run()
    handle.remove()
    return *seen[-1], result


def attention_by_loops(model, images):
    """Image attention of the last block from that block's input and weights; and the model's logits."""
    backbone = model.backbone
    if hasattr(backbone, 'layers'):
        last = backbone.layers[-1].attn
        weight, bias = last.qkv.weight, last.qkv.bias
    else:
        last = backbone.block4[-1].attn
        weight, bias = torch.cat([last.q.weight, last.kv.weight]), torch.cat([last.q.bias, last.kv.bias])
    with torch.no_grad():
        inputs, _, logits = run_and_see(last, lambda: model.head(backbone(images)))
    return reference.block_attention(inputs, weight, bias, last.num_heads, num_extra_tokens=1), logits


def step_by_loops(model, images, labels, grid, region, consistency='logits', weights=(1, 1, 1)):
    """Section 1 of the method, steps 1 to 5, for one region size; the model is in training mode without dropout."""
    one_hot = torch.eye(model.head.num_classes)[labels]
    share = region[0] * region[1] / (grid[0] * grid[1])
    model.eval()
    attention, unmixed_logits = attention_by_loops(model, images)
    model.train()
    mixed, mask = reference.max_min_mix(images, attention.reshape(len(images), *grid), region)

    _, tokens, logits = run_and_see(final_norm(model), lambda: model.head(model.backbone(mixed)))
    inside, outside = reference.region_means(tokens[:, 1:], mask)
    classify = model.region_head or (lambda means: model.head((means,)))
    fine = reference.cross_entropy(classify(inside), one_hot.flip(0), 0.1)
    fine = (fine + reference.cross_entropy(classify(outside), one_hot, 0.1)) / 2
    expected = reference.expected_probabilities(unmixed_logits, share, consistency)
    return dict(
        loss_cls=weights[0] * reference.cross_entropy(logits, reference.mix_pairs(one_hot, share), 0.1),
        loss_fine=weights[1] * fine,
        loss_con=weights[2] * reference.consistency(logits, expected),
    )


@pytest.mark.parametrize(
    ('family', 'batch', 'size', 'grid', 'settings'),
    [
        ('vit', 5, (32, 32), (4, 4), dict()),
        ('vit', 4, (32, 48), (4, 6), dict(consistency='probabilities')),
        (
            'vit',
            2,
            (32, 32),
            (4, 4),
            dict(region_head='shared', loss=dict(cls_weight=0.5, fine_weight=2, con_weight=3)),
        ),
        ('vit', 1, (32, 32), (4, 4), dict()),
        ('pvt', 4, (32, 32), (4, 4), dict()),
        ('pvt', 3, (48, 32), (6, 4), dict(region_head='shared', consistency='probabilities')),
    ],
)
def test_a_training_step_equals_one_by_loops(make_classifier, make_samples, family, batch, size, grid, settings):
    """Motivation, mixing and losses written out; the losses and the gradients of all parameters agree."""
    model = make_classifier(family, augments=smmix(side_ratio=0.5, **settings)).train()
    images = torch.randn(batch, 3, *size)
    losses = model.loss(images, make_samples(LABELS[:batch]))
    weights = settings.get('loss', {}).values() or (1, 1, 1)
    expected = step_by_loops(
        model,
        images,
        LABELS[:batch],
        grid,
        (grid[0] // 2, grid[1] // 2),
        settings.get('consistency', 'logits'),
        tuple(weights),
    )
    assert list(losses) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, rtol=1e-4, atol=1e-6, msg=name)

    found, wanted = gradients(model, losses), gradients(model, expected)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5, msg=name)
    assert (model.region_head is None) == ('region_head' in settings)


@pytest.mark.parametrize('settings', [dict(out_type='avg_featmap'), dict(out_type='avg_featmap', with_cls_token=False)])
def test_where_the_head_reads_mean_tokens_the_region_classifier_does_too(make_classifier, make_samples, settings):
    """Behind the same norms."""
    model = make_classifier('vit', backbone=settings, augments=smmix(side_ratio=0.5)).train()
    seen = []
    model.region_head.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    _, mixed = mixed_by(model, torch.randn(3, 3, 32, 32), make_samples(LABELS[:3]))

    _, tokens, _ = run_and_see(model.backbone.ln1, lambda: model.backbone(mixed.images))
    tokens = model.backbone.ln2(tokens[:, int(model.backbone.with_cls_token) :])
    for found, expected in zip(seen, reference.region_means(tokens, mixed.source_mask), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ('family', 'settings'),
    [
        ('vit', dict()),
        ('pvt', dict()),
        ('vit', dict(backbone=dict(out_type='featmap'), neck=dict(type='mmpretrain.GlobalAveragePooling'))),
    ],
)
def test_unmixed_steps_are_the_stock_classifiers(make_classifier, make_samples, family, settings):
    """The head's own loss, behind the stock neck; the gradients too."""
    model = make_classifier(family, augments=[], probs=None, **settings).train()
    stock = make_classifier(family, type='mmpretrain.ImageClassifier', **settings).train()
    stock.load_state_dict(model.state_dict())
    images, samples = torch.randn(4, 3, 32, 32), make_samples(LABELS[:4])
    losses, expected = model.loss(images, samples), stock.loss(images, samples)
    assert torch.equal(losses['loss_cls'], expected['loss'])
    found, wanted = gradients(model, losses), gradients(stock, expected)
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


def test_mixup_steps_are_cross_entropy_under_mixed_labels(make_classifier, make_samples):
    model, images = make_classifier(augments=MIXUP).train(), torch.randn(4, 3, 32, 32)
    losses, mixed = mixed_by(model, images, make_samples(LABELS[:4]))
    logits = model.head(model.backbone(mixed.images))
    torch.testing.assert_close(losses['loss_cls'], reference.cross_entropy(logits, mixed.targets, 0.1))
    assert list(losses) == ['loss_cls']
    assert not torch.equal(mixed.images, images)


def mixed_by(model, images, samples):
    """The losses of a step, and what its method made of the batch."""
    seen = []
    handles = [
        method.register_forward_hook(lambda module, args, output: seen.append(output))
        for method in model.mixing.methods
    ]
    losses = model.loss(images, samples)
    for handle in handles:
        handle.remove()
    assert isinstance(seen[0], MixedBatch)
    return losses, seen[0]


@pytest.mark.parametrize('weights', [w for w in itertools.product((0, 1), repeat=3) if any(w)])
def test_terms_of_weight_zero_are_skipped(make_classifier, make_samples, weights):
    """The others keep their values; without the fine-grained term there is no region classifier."""
    model = make_classifier(augments=smmix(side_ratio=0.5)).train()
    names = ['cls_weight', 'fine_weight', 'con_weight']
    partial = make_classifier(augments=smmix(side_ratio=0.5, loss=dict(zip(names, weights, strict=True)))).train()
    partial.load_state_dict(model.state_dict(), strict=False)
    images, samples = torch.randn(4, 3, 32, 32), make_samples(LABELS[:4])
    whole, losses = model.loss(images, samples), partial.loss(images, samples)
    assert list(losses) == [name for name, weight in zip(whole, weights, strict=True) if weight]
    for name, value in losses.items():
        assert torch.equal(value, whole[name])
    assert (partial.region_head is not None) == bool(weights[1])


@pytest.mark.parametrize(
    ('settings', 'backbone_runs', 'head_runs'),
    [
        (dict(), 2, 2),
        (dict(loss=dict(con_weight=0)), 2, 1),
        (dict(placement='cutmix'), 2, 2),
        (dict(placement='cutmix', loss=dict(con_weight=0)), 1, 1),
        (dict(region_head='shared'), 2, 4),
        (dict(region_head='shared', loss=dict(fine_weight=0)), 2, 2),
    ],
)
@FAMILIES
def test_a_step_costs_no_more_passes_than_its_terms_need(
    make_classifier, make_samples, family, settings, backbone_runs, head_runs
):
    model, counts = make_classifier(family, augments=smmix(**settings)).train(), dict(backbone=0, head=0)

    def count(name):
        counts[name] += 1

    model.backbone.register_forward_hook(lambda *args: count('backbone'))
    model.head.register_forward_hook(lambda *args: count('head'))
    model.loss(torch.randn(2, 3, 32, 32), make_samples([0, 1]))
    assert counts == dict(backbone=backbone_runs, head=head_runs)


@pytest.mark.parametrize('augment', [MIXUP, CUTMIX, None])
def test_idle_region_classifier_has_zero_gradients(make_classifier, make_samples, augment):
    """Not absent ones, in steps of other methods and in unmixed ones; the loss itself does not change."""
    augments, probs = ([augment, smmix()], [1.0, 0.0]) if augment else ([smmix()], [0.0])
    model = make_classifier(augments=augments, probs=probs).train()
    images, samples = torch.randn(4, 3, 32, 32), make_samples(LABELS[:4])
    losses, mixed = mixed_by(model, images, samples)
    torch.testing.assert_close(
        losses['loss_cls'], model.criterion(model.head(model.backbone(mixed.images)), mixed.targets), rtol=1e-6, atol=0
    )
    found = gradients(model, losses)
    for name, value in found.items():
        assert value is not None, name
        assert bool(value.abs().max() > 0) != name.startswith('region_head'), name


def test_gradient_checkpointing_in_the_backbone_changes_no_step(make_classifier, make_samples):
    found, images = [], torch.randn(4, 3, 32, 32)
    for with_cp in (False, True):
        torch.manual_seed(0)
        model = make_classifier('pvt', backbone=dict(with_cp=with_cp), augments=smmix(side_ratio=0.5)).train()
        losses = model.loss(images, make_samples(LABELS[:4]))
        found.append(gradients(model, losses))
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-5, atol=1e-6, msg=name)


@FAMILIES
def test_every_parameter_has_a_gradient_in_an_smmix_step(make_classifier, make_samples, family):
    model = make_classifier(family, augments=smmix()).train()
    found = gradients(model, model.loss(torch.randn(4, 3, 32, 32), make_samples(LABELS[:4])))
    assert all(value is not None and value.abs().max() > 0 for value in found.values())


@EXPLICIT_ATTENTION
def test_motivation_is_the_evaluated_model(make_classifier, family):
    """Without dropout and stochastic depth, though the model is in training mode; without a graph."""
    model = make_classifier(family, backbone=dict(drop_rate=0.5, drop_path_rate=0.5)).train()
    images = torch.randn(3, 3, 32, 32)
    found = model.motivate(BOTH, images)
    attention, logits = attention_by_loops(model.eval(), images)
    assert found.grid == (4, 4)
    assert torch.equal(found.logits, logits)
    torch.testing.assert_close(found.attention.flatten(1).double(), attention, rtol=1e-4, atol=0)
    assert not found.logits.requires_grad
    assert not found.attention.requires_grad


def test_motivation_gives_only_what_is_asked_for(make_classifier):
    model, images = make_classifier().train(), torch.randn(2, 3, 32, 48)
    whole = model.motivate(BOTH, images)
    for attention, logits in itertools.product((False, True), repeat=2):
        found = model.motivate(Question(attention=attention, logits=logits), images)
        assert found.grid == whole.grid == (4, 6)
        assert torch.equal(found.attention, whole.attention) if attention else found.attention is None
        assert torch.equal(found.logits, whole.logits) if logits else found.logits is None


def modes(model):
    return {name: module.training for name, module in model.named_modules()}


@pytest.mark.parametrize('fails', [False, True])
@FAMILIES
def test_motivation_leaves_modes_and_random_states_alone(make_classifier, family, fails):
    """Parts that were frozen in evaluation mode stay so; also when the pass fails."""
    model = make_classifier(family, backbone=dict(drop_rate=0.5)).train()
    next(module for module in model.modules() if isinstance(module, nn.Dropout)).eval()
    model.head.eval()
    first = dict(vit='layers', pvt='block1', cait='blocks', swin='stages')[family]
    getattr(model.backbone, first)[0].eval()
    before = modes(model), random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert 0 < sum(before[0].values()) < len(before[0])

    if fails:
        model.head.register_forward_hook(lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            model.motivate(BOTH, torch.randn(1, 3, 32, 32, generator=torch.Generator()))
    else:
        model.motivate(BOTH, torch.randn(1, 3, 32, 32, generator=torch.Generator()))
    after = modes(model), random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert after == before


@pytest.mark.parametrize('asked', [BOTH, Question(attention=True), Question(), replace(BOTH, autocast=False)])
@pytest.mark.parametrize('autocast', [False, True])
@FAMILIES
def test_motivation_leaves_no_trace_in_the_gradients(make_classifier, family, autocast, asked):
    """A training pass after it has the gradients that it has without it, under autocast too."""
    model, images = make_classifier(family).train(), torch.randn(2, 3, 32, 32)
    found = {}
    for motivated in (False, True):
        with torch.autocast('cpu', dtype=torch.bfloat16, enabled=autocast):
            if motivated:
                model.motivate(asked, images)
            logits = model(images)
        assert logits.dtype == (torch.bfloat16 if autocast else torch.float32)
        found[motivated] = gradients(model, dict(loss=logits.float().square().sum()))
    for name, value in found[False].items():
        assert (value is None) == name.startswith('region_head')
        assert value is None or torch.equal(found[True][name], value), name


@pytest.mark.parametrize('asked', [BOTH, Question(attention=True), Question(), replace(BOTH, autocast=False)])
@pytest.mark.parametrize('cached', [False, True])
@FAMILIES
def test_motivation_keeps_out_of_the_cache_of_autocast(make_classifier, family, cached, asked):
    """On torch 2.1 weights that are cast without a graph would stay there for the training pass.

    Nothing that has weights runs without gradients while the cache is on; afterwards it is as it was.
    """
    model, cache_was_on = make_classifier(family).train(), {}
    for name, module in model.named_modules():
        if list(module.parameters(recurse=False)):
            module.register_forward_pre_hook(
                lambda *args, name=name: cache_was_on.update({name: torch.is_autocast_cache_enabled()})
            )
    with torch.autocast('cpu', dtype=torch.bfloat16, cache_enabled=cached):
        model.motivate(asked, torch.randn(2, 3, 32, 32))
        assert torch.is_autocast_cache_enabled() == cached
        assert torch.mm(torch.eye(1), torch.eye(1)).dtype == torch.bfloat16
    assert not any(cache_was_on.values()), cache_was_on


def test_motivation_follows_the_trainings_autocast_unless_told_otherwise(make_classifier):
    model, images = make_classifier().train(), torch.randn(2, 3, 32, 32)
    exact = model.motivate(BOTH, images)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        half, full = model.motivate(BOTH, images), model.motivate(replace(BOTH, autocast=False), images)
    assert half.logits.dtype == torch.bfloat16
    assert half.attention.dtype == torch.float32
    assert torch.equal(full.logits, exact.logits)
    assert torch.equal(full.attention, exact.attention)
    assert not torch.equal(half.attention, exact.attention)


@pytest.mark.parametrize('settings', [dict(), dict(motivation_autocast=False), dict(region_head='shared')])
@FAMILIES
def test_a_step_under_autocast_stays_close_to_full_precision(make_classifier, make_samples, family, settings):
    """With CutMix's placement, so that rounding cannot choose another region."""
    model = make_classifier(family, augments=smmix(side_ratio=0.5, placement='cutmix', **settings)).train()
    images, samples, found = torch.randn(4, 3, 32, 32), make_samples(LABELS[:4]), []
    for autocast in (False, True):
        model.mixing.draw = lambda: (model.mixing.methods[0], step_streams(0, 0))
        with torch.autocast('cpu', dtype=torch.bfloat16, enabled=autocast):
            losses = model.loss(images, samples)
        found.append((losses, gradients(model, losses)))
    (exact, exact_gradients), (half, half_gradients) = found
    for name, value in exact.items():
        torch.testing.assert_close(half[name].float(), value, rtol=0.05, atol=0.05, msg=name)
    flat = [torch.cat([value.flatten() for value in of.values()]) for of in (half_gradients, exact_gradients)]
    assert torch.cosine_similarity(*flat, dim=0) > 0.9


@FAMILIES
def test_a_stock_classifier_loads_the_checkpoint_and_predicts_the_same(make_classifier, family):
    """The region classifier alone is left over."""
    model = make_classifier(family).eval()
    stock = make_classifier(family, type='mmpretrain.ImageClassifier').eval()
    assert type(stock) is ImageClassifier
    missing, unexpected = stock.load_state_dict(model.state_dict(), strict=False)
    assert not missing
    assert sorted(unexpected) == ['region_head.bias', 'region_head.weight']

    images = torch.randn(3, 3, 32, 32)
    for mine, theirs in zip(model.predict(images), stock.predict(images), strict=True):
        assert torch.equal(mine.pred_score, theirs.pred_score)
        assert torch.equal(mine.pred_label, theirs.pred_label)
    assert torch.equal(model(images), stock(images))


@pytest.mark.parametrize('settings', [dict(region_head='shared'), dict(loss=dict(fine_weight=0))])
def test_without_a_region_classifier_checkpoints_are_the_stock_ones(make_classifier, settings):
    model = make_classifier(augments=[MIXUP, smmix(**settings)])
    assert list(model.state_dict()) == list(make_classifier(type='mmpretrain.ImageClassifier').state_dict())


def test_a_classifier_without_methods_adds_nothing(make_classifier):
    model = make_classifier(train_cfg=None)
    assert list(model.state_dict()) == list(make_classifier(type='mmpretrain.ImageClassifier').state_dict())
    assert model.region_head is None


def check_published(model, pretrained=()):
    """All parameters but those below the given prefixes."""
    owners = dict(model.named_modules())
    for name, parameter in model.named_parameters():
        if name.startswith(tuple(pretrained)):
            continue
        owner, kind, values = owners[name.rpartition('.')[0]], name.rpartition('.')[2], parameter.detach()
        if isinstance(owner, nn.LayerNorm):
            assert (values == (1 if kind == 'weight' else 0)).all(), name
        elif isinstance(owner, nn.Conv2d):
            bound = owner.weight[0].numel() ** -0.5
            assert values.abs().max() <= bound, name
            assert values.std().item() == pytest.approx(bound / 3**0.5, rel=2.5 / values.numel() ** 0.5), name
        elif kind == 'bias':
            assert (values == 0).all(), name
        else:
            assert values.std().item() == pytest.approx(0.02, abs=5 * 0.02 / (2 * values.numel()) ** 0.5), name
            assert values.abs().max() < 0.02 * 6, name
            assert abs(values.mean().item()) < 5 * 0.02 / values.numel() ** 0.5, name


@pytest.mark.parametrize(
    ('family', 'backbone'),
    [
        ('vit', dict()),
        ('vit', dict(init_cfg=[dict(type='TruncNormal', layer='Linear', std=0.5)])),
        ('vit', dict(with_cls_token=False, out_type='avg_featmap')),
        ('pvt', dict()),
    ],
)
def test_initialisation_is_the_published_one(make_classifier, family, backbone):
    """Truncated normal 0.02 for all linear layers, class token and position embeddings; biases 0; norms 1 and 0.

    Convolutions are torch's own. Stock mmpretrain leaves Xavier in the perceptrons and zeros in class token and head.
    """
    model = make_classifier(family, backbone=backbone)
    for parameter in model.parameters():
        nn.init.constant_(parameter, 7)
    model.init_weights()
    check_published(model)


def test_the_stock_initialisation_is_one_switch_away(make_classifier):
    model = make_classifier(published_init=False)
    model.init_weights()
    assert (model.head.layers.head.weight == 0).all()
    assert model.backbone.layers[0].ffn.layers[0][0].weight.std() > 0.1  # Xavier: 0.14


def test_initialisation_happens_once(make_classifier):
    """A second call, as a runner makes it before training, changes nothing."""
    model = make_classifier()
    model.init_weights()
    before = copy.deepcopy(model.state_dict())
    model.init_weights()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@FAMILIES
def test_a_pretrained_backbone_keeps_its_weights(make_classifier, family, tmp_path):
    """The rest starts as published."""
    donor = make_classifier(family)
    torch.save(dict(state_dict=donor.state_dict()), tmp_path / 'donor.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'donor.pth'), prefix='backbone')
    model = make_classifier(family, backbone=dict(init_cfg=init_cfg))
    model.init_weights()
    for name, value in donor.backbone.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[name], value), name
    check_published(model, pretrained=['backbone.'])


@pytest.mark.parametrize('how', ['init_cfg', 'pretrained'])
def test_a_pretrained_classifier_keeps_its_weights(make_classifier, tmp_path, how):
    donor = make_classifier()
    path = str(tmp_path / 'donor.pth')
    torch.save(dict(state_dict=donor.state_dict()), path)
    model = make_classifier(**{how: dict(type='Pretrained', checkpoint=path) if how == 'init_cfg' else path})
    model.init_weights()
    for name, value in donor.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_a_pretrained_stock_classifier_leaves_a_fresh_region_classifier(make_classifier, tmp_path):
    """Fine-tuning a checkpoint that has no region classifier: that one starts as published, not as torch's default."""
    donor = make_classifier(type='mmpretrain.ImageClassifier')
    torch.save(dict(state_dict=donor.state_dict()), tmp_path / 'donor.pth')
    model = make_classifier(pretrained=str(tmp_path / 'donor.pth'))
    nn.init.constant_(model.region_head.weight, 7)
    model.init_weights()
    check_published(model, pretrained=['backbone.', 'head.'])


@pytest.mark.parametrize(
    ('head', 'message'),
    [
        (dict(type='mmpretrain.ClsHead'), 'head of MixingClassifier.*num_classes.*ClsHead'),
        (
            dict(type='mmpretrain.MultiLabelLinearClsHead', num_classes=5, in_channels=32),
            'one label per image.*but got MultiLabelLinearClsHead.*several labels',
        ),
        (
            dict(
                type='mmpretrain.LinearClsHead',
                num_classes=5,
                in_channels=32,
                loss=dict(type='SeesawLoss', num_classes=5),
            ),
            'SeesawLoss of LinearClsHead cannot take soft labels',
        ),
        (
            dict(
                type='mmpretrain.LinearClsHead',
                num_classes=5,
                in_channels=32,
                loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, num_classes=1000),
            ),
            'num_classes of head is 5, but head.loss.num_classes is 1000',
        ),
        (
            dict(
                type='mmpretrain.LinearClsHead',
                num_classes=5,
                in_channels=32,
                loss=dict(type='CrossEntropyLoss', reduction='none'),
            ),
            'CrossEntropyLoss of LinearClsHead has to return a scalar',
        ),
    ],
)
def test_heads_that_cannot_serve_are_refused(make_classifier, head, message):
    with pytest.raises(ValueError, match=message):
        make_classifier(head=head)


def test_a_classifier_without_a_head_is_refused(make_backbone):
    with pytest.raises(ValueError, match='head of MixingClassifier'):
        MixingClassifier(backbone=make_backbone())


def test_a_shared_region_classifier_needs_a_head_for_mean_tokens(make_classifier):
    """Arc-face-like heads, multi-layer ones of other widths: what cannot read a mean token is refused at once."""
    head = dict(type='mmpretrain.LinearClsHead', num_classes=5, in_channels=16)
    with pytest.raises(ValueError, match=r"region_head='shared'.*32 channels.*LinearClsHead"):
        make_classifier(head=head, augments=smmix(region_head='shared'))


def test_a_criterion_is_tried_on_a_copy(make_classifier):
    """The trial before training leaves no trace in criteria that keep a state."""
    head = dict(
        type='mmpretrain.LinearClsHead',
        num_classes=5,
        in_channels=32,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1),
    )
    assert make_classifier(head=head).head.loss_module.num_classes is None


def test_mixing_in_the_data_preprocessor_is_refused(make_classifier):
    """Images would be mixed a second time."""
    augments = dict(augments=[dict(MIXUP)])
    with pytest.raises(ValueError, match=r'batch_augments of the data_preprocessor.*train_cfg.augments'):
        make_classifier(data_preprocessor=dict(batch_augments=augments))
    with pytest.raises(ValueError, match=r'batch_augments of the data_preprocessor.*train_cfg.augments'):
        make_classifier(data_preprocessor=ClsDataPreprocessor(batch_augments=augments))


def test_the_data_preprocessor_never_mixes(make_classifier):
    model = make_classifier(data_preprocessor=dict(mean=[0.0] * 3, std=[2.0] * 3))
    images = [torch.randint(0, 255, (3, 32, 32), dtype=torch.uint8) for _ in range(4)]
    data = dict(inputs=images, data_samples=[DataSample().set_gt_label(label) for label in LABELS[:4]])
    out = model.data_preprocessor(data, training=True)
    assert torch.equal(out['inputs'], torch.stack(images) / 2)
    assert [sample.gt_score.tolist() for sample in out['data_samples']] == torch.eye(5)[LABELS[:4]].tolist()


def batch_with(labels, **info):
    samples = [DataSample(metainfo=info).set_gt_label(label) for label in labels]
    return dict(inputs=[torch.zeros(3, 32, 32)] * len(labels), data_samples=samples)


@pytest.mark.parametrize(('labels', 'wrong'), [([0, 7], 7), ([5, 0], 5), ([0, -1, 2], -1)])
@pytest.mark.parametrize('training', [True, False])
def test_labels_out_of_range_are_named(make_classifier, labels, wrong, training):
    """Before they reach the device, with the image they belong to."""
    data = batch_with(labels, img_path='some/image.png')
    with pytest.raises(ValueError, match=rf'labels.*between 0 and 4.*num_classes=5.*some/image.png has \[{wrong}\]'):
        make_classifier().data_preprocessor(data, training)


def test_the_data_preprocessor_takes_keywords(make_classifier):
    out = make_classifier().data_preprocessor(data=batch_with([0, 4]), training=True)
    assert [sample.gt_score.argmax().item() for sample in out['data_samples']] == [0, 4]
    with pytest.raises(ValueError, match=r'has \[7\]'):
        make_classifier().data_preprocessor(data=batch_with([0, 7]), training=True)


def test_the_preprocessor_has_to_have_as_many_classes_as_the_head(make_classifier):
    """mmpretrain's ImageNet configs set num_classes=1000 there."""
    with pytest.raises(ValueError, match=r'num_classes.*1000.*5|num_classes.*5.*1000'):
        make_classifier(data_preprocessor=dict(num_classes=1000))


def test_a_copy_checks_labels_by_itself(make_classifier):
    """The averaged model of an EMA."""
    model = make_classifier()
    twin = copy.deepcopy(model)
    twin.data_preprocessor.num_classes = 2
    with pytest.raises(ValueError, match='between 0 and 1'):
        twin.data_preprocessor(batch_with([0, 4]), True)
    model.data_preprocessor(batch_with([0, 4]), True)


@pytest.mark.parametrize('family', ['vit', 'pvt', 'cait'])
def test_a_grid_of_one_token_is_an_error_on_the_first_batch(make_classifier, make_samples, pvt_arch, family):
    backbone = dict(arch=pvt_arch | dict(sr_ratios=[1, 1, 1, 1])) if family == 'pvt' else {}
    model = make_classifier(family, img_size=(8, 8), backbone=backbone, augments=smmix()).train()
    with pytest.raises(ValueError, match=r'side_ratio.*1 x 1'):
        model.loss(torch.randn(2, 3, 8, 8), make_samples([0, 1]))


def test_steps_draw_from_the_runs_seed_and_iteration(make_classifier, make_samples, enter_run):
    """Two models with the same weights train alike, whatever the global state; the next step is another."""
    model, images, samples = make_classifier().train(), torch.randn(4, 3, 32, 32), make_samples(LABELS[:4])
    found = []
    for noise, iteration in ((1, 3), (2, 3), (1, 4)):
        torch.manual_seed(noise)
        np.random.seed(noise)
        enter_run(seed=9, iteration=iteration)
        losses = copy.deepcopy(model).loss(images.clone(), samples)
        found.append(sum(losses.values()).item())
    assert found[0] == found[1] != found[2]


def pictures(count, generator):
    """Four classes: a bright square in one of the four corners, on noise."""
    images = torch.randn(count, 3, 32, 32, generator=generator)
    labels = torch.randint(0, 4, (count,), generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        top, left = 18 * (label // 2), 18 * (label % 2)
        image[:, top : top + 14, left : left + 14] += 1.0
    return images, labels


def test_a_short_training_learns(make_classifier):
    """Mixup and SMMix in turn, through mmengine's train_step, from the published initialisation; chance is 0.25."""
    model = make_classifier('vit', backbone=dict(drop_path_rate=0.1), probs=[0.3, 0.7])
    model.init_weights()
    generator = torch.Generator().manual_seed(5)
    optimiser = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=2e-3))
    model.train()
    history = []
    for _ in range(100):
        images, labels = pictures(32, generator)
        samples = [DataSample().set_gt_label(label) for label in labels]
        history.append(model.train_step(dict(inputs=images, data_samples=samples), optimiser))
    model.eval()
    images, labels = pictures(200, generator)
    with torch.no_grad():
        accuracy = (model(images).argmax(1) == labels).float().mean().item()
    losses = [step['loss_cls'].item() for step in history]
    assert accuracy > 0.8
    assert sum(losses[-20:]) / 20 < sum(losses[:20]) / 20 - 0.2
    assert {frozenset(step) for step in history} == {
        frozenset(['loss', 'loss_cls']),
        frozenset(['loss', 'loss_cls', 'loss_fine', 'loss_con']),
    }


@pytest.mark.parametrize(('family', 'size'), [('vit', (35, 32)), ('vit', (30, 30)), ('pvt', (35, 40))])
def test_images_whose_tokens_an_even_split_would_miss_are_refused(make_classifier, make_samples, family, size):
    """The backbone pads or crops such images; the grid may still divide them."""
    model = make_classifier(family, augments=smmix())
    with pytest.raises(ValueError, match=r'multiples of 8 x 8 pixels.*got \d+ x \d+'):
        model.loss(torch.randn(2, 3, *size), make_samples(LABELS[:2]))


def test_head_has_a_gradient_when_regions_alone_are_judged(make_classifier, make_samples):
    """Zero, not absent: DDP would wait for it."""
    model = make_classifier('vit', augments=smmix(loss=dict(cls_weight=0.0, con_weight=0.0)))
    found = gradients(model, model.loss(torch.randn(2, 3, 32, 32), make_samples(LABELS[:2])))
    heads = {name: grad for name, grad in found.items() if name.startswith('head.')}
    assert heads
    assert all(not grad.any() for grad in heads.values())


@pytest.mark.parametrize('family', ['vit', 'swin'])
def test_in_evaluation_mode_the_loss_is_the_stock_classifiers(make_classifier, make_samples, family):
    """Number for number, and nothing is mixed; a stock classifier of the same weights says so too."""
    model = make_classifier(family).eval()
    stock = make_classifier(family, type='mmpretrain.ImageClassifier').eval()
    stock.load_state_dict(model.state_dict(), strict=False)
    images, samples = torch.randn(3, 3, 32, 32), make_samples([0, 3, 1])
    before = images.clone()
    losses = model.loss(images, samples)
    assert set(losses) == {'loss'}
    torch.testing.assert_close(losses['loss'], stock.loss(images, samples)['loss'], rtol=0, atol=0)
    assert torch.equal(images, before)


def batch_of(labels):
    samples = [DataSample(metainfo=dict(img_path=f'{index}.png')) for index in range(len(labels))]
    for sample, label in zip(samples, labels, strict=True):
        if label is not None:
            sample.set_gt_label(label)
    return dict(inputs=torch.zeros(len(labels), 3, 32, 32), data_samples=samples)


@pytest.mark.parametrize(
    ('labels', 'message'),
    [
        ([1, None], r'images need labels.*1\.png has none.*with_label=True'),
        ([None, None], r'images need labels.*0\.png has none'),
        ([1, [0, 2]], r'one label per image, but 1\.png has \[0, 2\]'),
    ],
)
def test_images_without_a_label_or_with_several_are_named(make_classifier, labels, message):
    model = make_classifier()
    with pytest.raises(ValueError, match=message):
        model.data_preprocessor(batch_of(labels), True)
    if None in labels:
        # In a test there may be none.
        model.data_preprocessor(batch_of([None, None]), False)


def test_scores_of_several_labels_are_named(make_classifier):
    """Soft labels of one distribution are not."""
    model, batch = make_classifier(), batch_of([None, None])
    batch['data_samples'][0].set_gt_score(torch.tensor([0.4, 0.6, 0, 0, 0]))
    batch['data_samples'][1].set_gt_score(torch.tensor([1.0, 0, 0, 1, 0]))
    with pytest.raises(ValueError, match=r'one label per image or .* sum to 1, but gt_score of 1\.png sums to 2'):
        model.data_preprocessor(batch, True)
    batch['data_samples'][1].set_gt_score(torch.tensor([0.0, 0, 0, 1, 0]))
    model.data_preprocessor(batch, True)


@pytest.mark.parametrize('family', ['vit', 'swin', 'pvt'])
@pytest.mark.parametrize('of_classifier', [True, False])
def test_pretrained_weights_of_a_backbone_are_loaded_whole(tmp_path, make_classifier, family, of_classifier):
    """Of a stock one too, from a classifier's checkpoint without a prefix; the head is initialised as published."""
    source = make_classifier(family)
    weights = source.state_dict() if of_classifier else source.backbone.state_dict()
    torch.save(dict(state_dict=weights), tmp_path / 'source.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'source.pth'))
    model = make_classifier(family, backbone=dict(init_cfg=init_cfg))
    model.init_weights()
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, source.backbone.state_dict()[name]), name
    assert model.backbone.init_cfg == init_cfg
    assert [linear.weight.std().item() for linear in model.head.modules() if isinstance(linear, nn.Linear)] == [
        pytest.approx(0.02, rel=0.3)
    ]


@pytest.mark.parametrize('of', ['model', 'teacher'])
def test_parts_that_a_checkpoint_does_not_have_stay_as_they_were_drawn(tmp_path, make_classifier, of):
    source = make_classifier('swin')
    torch.save(dict(state_dict=source.backbone.state_dict()), tmp_path / 'source.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'source.pth'), strict=True, fresh=('norm0',))
    backbone = dict(out_indices=(0, 1), init_cfg=init_cfg)
    if of == 'model':
        model = make_classifier('swin', backbone=backbone)
    else:
        teacher = dict(
            type='mmpretrain.ImageClassifier',
            backbone=backbone_cfg('swin', **backbone),
            neck=neck_cfg('swin'),
            head=head_cfg('swin'),
        )
        model = make_classifier('swin', teacher=teacher, augments=[dict(type='smmix_mm.AttentiveMix', cell_size=8)])
    loaded = model.backbone if of == 'model' else model.teacher.model.backbone
    drawn = loaded.norm0.weight.clone()
    model.init_weights()
    assert torch.equal(loaded.norm0.weight, drawn)
    for name, value in source.backbone.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name


@pytest.mark.parametrize('family', ['vit', 'swin'])
def test_pretrained_weights_that_lack_a_tensor_are_refused(tmp_path, make_classifier, family):
    weights = make_classifier(family).state_dict()
    lost = next(name for name in weights if name.startswith('backbone.') and name.endswith('ffn.layers.1.weight'))
    torch.save(dict(state_dict={name: weights[name] for name in weights if name != lost}), tmp_path / 'source.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'source.pth'))
    model = make_classifier(family, backbone=dict(init_cfg=init_cfg))
    with pytest.raises(ValueError, match=f'source.pth does not fit.*\n.*{lost.removeprefix("backbone.")}'):
        model.init_weights()
