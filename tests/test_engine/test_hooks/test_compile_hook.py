"""A compiled backbone: what is compiled how often, and that nothing else changes."""

import copy
from types import SimpleNamespace

import pytest
import torch
from mmcv.cnn.bricks import DropPath
from torch import nn
from torch._dynamo.utils import counters
from torch.distributed.fsdp import FullyShardedDataParallel

from smmix_mm.engine import CompileBackbone

# A training pass with and without the class token's attention, and a motivation.
AUGMENTS = [
    dict(type='mmpretrain.Mixup', alpha=0.8),
    dict(type='smmix_mm.SMMix'),
    dict(type='smmix_mm.TransMix'),
]
FAMILIES = ('vit', 'pvt', 'cait', 'swin')


@pytest.fixture(autouse=True)
def nothing_compiled():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def start(model, **settings):
    CompileBackbone(**settings).before_train(SimpleNamespace(model=model))


def graphs():
    assert not counters['graph_break'], dict(counters['graph_break'])
    return counters['stats']['unique_graphs']


def step(model, images, samples, iteration, dtype=None):
    """Losses and gradients; what drop path draws depends on the iteration alone."""
    torch.manual_seed(iteration)
    with torch.autocast('cpu', dtype=dtype or torch.bfloat16, enabled=dtype is not None):
        losses = model.loss(images.clone(), samples)
    model.zero_grad()
    sum(losses.values()).backward()
    return losses, {name: parameter.grad for name, parameter in model.named_parameters()}


def compare(model, eager, data, iterations, enter_run, dtype=None, **tolerance):
    for iteration in iterations:
        enter_run(0, iteration)
        found, expected = (step(part, *data, iteration, dtype) for part in (model, eager))
        for of_found, of_expected in zip(found, expected, strict=True):
            assert of_found.keys() == of_expected.keys()
            for name, value in of_expected.items():
                torch.testing.assert_close(of_found[name], value, msg=f'{name}, step {iteration}', **tolerance)


def drawn(model, iterations, enter_run):
    """The methods and region sizes of these steps."""
    smmix, found = model.mixing.methods[1], []
    for iteration in iterations:
        enter_run(0, iteration)
        method, streams = model.mixing.draw()
        found.append((type(method).__name__, smmix.draw_region((4, 4), streams.shared) if method is smmix else None))
    return found


@pytest.mark.parametrize(
    'family, dtype',
    [
        # tests/test_adapters.py reads each family compiled.
        ('vit', torch.bfloat16),
        *(
            pytest.param(family, dtype, marks=pytest.mark.slow)
            for family in FAMILIES
            for dtype in (None, torch.bfloat16)
            if (family, dtype) != ('vit', torch.bfloat16)
        ),
    ],
)
def test_steps_are_those_of_the_model_as_it_is(make_classifier, make_samples, enter_run, family, dtype):
    """Bit by bit, whatever method and region size is drawn; all graphs are there after the first step of each kind."""
    model = make_classifier(family, augments=AUGMENTS, backbone=dict(drop_path_rate=0.3)).train()
    eager, data = copy.deepcopy(model), (torch.randn(4, 3, 32, 32), make_samples(range(4)))
    start(model, backend='aot_eager')
    kinds = drawn(eager, range(9), enter_run)
    assert {name for name, _ in kinds[:5]} == {'StockMixing', 'SMMix', 'TransMix'}
    assert len({region for _, region in kinds if region}) > 1

    compare(model, eager, data, range(5), enter_run, dtype, rtol=0, atol=0)
    assert graphs() == 3
    compare(model, eager, data, range(5, 9), enter_run, dtype, rtol=0, atol=0)
    assert graphs() == 3


@pytest.mark.slow
def test_other_sizes_and_evaluation_cost_a_graph_each_and_no_more(make_classifier, make_samples, enter_run):
    """A smaller last batch, a motivation at a lower resolution, an evaluation, and back again."""
    augments = [dict(type='smmix_mm.SMMix', motivation_scale=0.5)]
    model = make_classifier('vit', (64, 64), augments=augments).train()
    eager, images = copy.deepcopy(model), torch.randn(4, 3, 64, 64)
    start(model, backend='eager')
    counts = []
    for epoch in range(2):
        for batch in (4, 4, 3):
            data = images[:batch], make_samples(range(batch))
            compare(model, eager, data, [epoch], enter_run, rtol=0, atol=0)
            counts.append(graphs())
        with torch.no_grad():
            outputs = [part.eval()(images) for part in (model, eager)]
        torch.testing.assert_close(*outputs, rtol=0, atol=0)
        model.train(), eager.train()
        counts.append(graphs())
    assert counts == [2, 2, 4, 5, 5, 5, 5, 5]


def test_names_of_weights_stay_and_copies_are_not_compiled(make_classifier, make_samples):
    model = make_classifier('vit', augments=AUGMENTS[1:2]).train()
    names = list(model.state_dict())
    start(model, backend='eager')
    model.loss(torch.randn(2, 3, 32, 32), make_samples(range(2)))
    assert list(model.state_dict()) == names == [name for name in names if '_orig_mod' not in name]
    before, twin = graphs(), copy.deepcopy(model)
    twin.load_state_dict(model.state_dict())
    twin.loss(torch.randn(3, 3, 32, 32), make_samples(range(3)))
    assert graphs() == before


@pytest.mark.parametrize('teacher', [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_teacher_is_compiled_unless_told_otherwise(make_classifier, make_samples, teacher):
    other = make_classifier('pvt', type='mmpretrain.ImageClassifier')
    model = make_classifier('vit', augments=AUGMENTS[1:2], teacher=other).train()
    eager, data = copy.deepcopy(model), (torch.randn(2, 3, 32, 32), make_samples(range(2)))
    expected = eager.loss(data[0].clone(), data[1])
    start(model, backend='eager', teacher=teacher)
    found = model.loss(data[0].clone(), data[1])
    assert graphs() == 1 + teacher
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_a_backbone_that_is_not_one_graph_is_refused_or_works(make_classifier, make_samples):
    """Where torch leaves out hooks, an error says so."""

    class Breaking(nn.Module):
        def forward(self, x):
            torch._dynamo.graph_break()
            return x

    data = torch.randn(2, 3, 32, 32), make_samples(range(2))
    model = make_classifier('vit', augments=AUGMENTS[1:2]).train()
    model.backbone.layers[-1].attn.proj = nn.Sequential(model.backbone.layers[-1].attn.proj, Breaking())
    eager, strict = copy.deepcopy(model), copy.deepcopy(model)
    start(strict, backend='eager')
    with pytest.raises(RuntimeError, match='graph_break'):
        strict.loss(data[0].clone(), data[1])
    torch._dynamo.reset()
    start(model, backend='eager', fullgraph=False)
    try:
        found = model.loss(data[0].clone(), data[1])
    except RuntimeError as error:
        assert 'saw no output' in str(error)
    else:
        for name, value in eager.loss(data[0].clone(), data[1]).items():
            torch.testing.assert_close(found[name], value)


def test_one_graph_needs_no_order_to_be_one(make_classifier, make_samples):
    """With fullgraph=False the stock ViT, whose drop path would break it, is one graph all the same."""
    model = make_classifier('vit', augments=AUGMENTS[1:2], backbone=dict(drop_path_rate=0.2)).train()
    assert not any(type(part.drop_prob) is float for part in model.backbone.modules() if isinstance(part, DropPath))
    start(model, backend='eager', fullgraph=False)
    model.loss(torch.randn(2, 3, 32, 32), make_samples(range(2)))
    assert graphs() == 2


def test_models_that_cannot_be_compiled_are_refused(tmp_path):
    with pytest.raises(ValueError, match='CompileBackbone needs a model with a backbone, but Linear has none'):
        start(nn.Linear(1, 1))
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    try:
        sharded = nn.Module()
        sharded.backbone = nn.Sequential(FullyShardedDataParallel(nn.Linear(2, 2), device_id=torch.device('cpu')))
        with pytest.raises(ValueError, match='not sharded, but FSDP has wrapped 0 of it'):
            start(sharded)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize('family', FAMILIES)
def test_generated_code_gives_the_same_up_to_rounding(make_classifier, make_samples, enter_run, family):
    """torch's default backend, which writes C++ here; with CutMix's placement, so that rounding moves nothing."""
    augments = [AUGMENTS[0], dict(type='smmix_mm.SMMix', placement='cutmix')]
    model = make_classifier(family, augments=augments).train()
    eager, data = copy.deepcopy(model), (torch.randn(4, 3, 32, 32), make_samples(range(4)))
    start(model)
    compare(model, eager, data, range(6), enter_run, rtol=1e-3, atol=1e-4)
    assert graphs() == 2
