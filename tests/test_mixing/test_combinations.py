"""Every method with every model, alone and in one list."""

import copy
import itertools

import pytest
import torch
from conftest import METHODS
from mmengine.optim import OptimWrapper

FAMILIES = ('vit', 'pvt', 'cait', 'swin')


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('name', METHODS)
def test_a_training_step(make_classifier, make_samples, name, family):
    """Losses and gradients of all trained parameters are finite, for any batch size."""
    teacher = make_classifier('vit', type='mmpretrain.ImageClassifier')
    model = make_classifier(family, augments=[METHODS[name]], teacher=teacher).train()
    for batch in (1, 3, 4):
        losses = model.loss(torch.randn(batch, 3, 32, 32), make_samples(range(batch)))
        assert all(key.startswith('loss_') and value.ndim == 0 for key, value in losses.items())
        model.zero_grad()
        sum(losses.values()).backward()
        for key, parameter in model.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None and parameter.grad.isfinite().all(), key
    assert all(parameter.grad is None for parameter in model.teacher.model.parameters())


@pytest.mark.parametrize('batch', [1, 3])
@pytest.mark.parametrize(
    'method',
    [
        dict(type='smmix_mm.TokenMix', patch_size=4, mask='block'),
        dict(type='smmix_mm.TokenMix', patch_size=4, mask='random'),
        dict(type='smmix_mm.AttentiveMix', cell_size=4, by='attention'),
        dict(type='smmix_mm.AttentiveMix', cell_size=12, by='activation'),
        dict(type='smmix_mm.PuzzleMix', block_powers=(1, 2)),
    ],
)
@pytest.mark.parametrize('teacher_patch', [4, 6])
def test_a_grid_of_ones_own_needs_no_multiple_of_the_stride(
    make_classifier, make_samples, method, batch, teacher_patch
):
    """Swin pads pictures of 36 x 36 to its stride of 8; regions of its tokens would not be where pixels are."""
    size, samples = (36, 36), make_samples(range(batch))
    vit = dict(patch_size=teacher_patch)
    teacher = make_classifier('vit', size, type='mmpretrain.ImageClassifier', backbone=vit)
    model = make_classifier('swin', size, augments=[method], teacher=teacher).train()
    assert any(side % stride for side, stride in zip(size, model.adapter.stride, strict=True))
    losses = model.loss(torch.randn(batch, 3, *size), samples)
    sum(losses.values()).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
        assert 'bias_table' in key or parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize('family', FAMILIES)
def test_all_in_one_list(make_classifier, make_samples, family):
    """Whatever a step draws, no parameter is without gradient, and the draws repeat from the seed."""
    teacher = make_classifier('pvt', type='mmpretrain.ImageClassifier')
    model = make_classifier(family, augments=list(METHODS.values()), teacher=teacher).train()
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=1e-3))
    drawn = set()
    for method in model.mixing.methods:
        method.register_forward_hook(lambda module, *args: drawn.add(id(module)))
    for step in range(40):
        losses = model.loss(torch.randn(2, 3, 32, 32), make_samples([step % 5, 1]))
        sum(losses.values()).backward()
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        assert all(parameter.grad is not None for parameter in trained)
        wrapper.step()
        wrapper.zero_grad()
    assert len(drawn) >= 8


def test_a_sum_below_one_leaves_the_rest_unmixed(make_classifier, make_samples):
    augments = [METHODS['TransMix'], METHODS['FMix']]
    model = make_classifier(augments=augments, probs=[0.2, 0.3]).train()
    counts = dict.fromkeys(range(3), 0)
    for index, method in enumerate(model.mixing.methods):
        method.register_forward_hook(lambda *args, index=index: counts.update({index: counts[index] + 1}))
    images, samples = torch.randn(2, 3, 32, 32), make_samples([0, 1])
    with torch.no_grad():
        for _ in range(200):
            model.loss(images, samples)
    # Three standard deviations of 200 draws.
    for index, prob in enumerate((0.2, 0.3, 0.5)):
        assert abs(counts[index] - 200 * prob) < 3 * (200 * prob * (1 - prob)) ** 0.5


@pytest.mark.parametrize('pair', itertools.combinations(('AutoMix', 'SMMix', 'TokenMix'), 2), ids='+'.join)
def test_copies_of_a_model_train_alike(make_classifier, make_samples, pair):
    """Averaged weights are kept in deep copies; nothing of a method may be shared with the original but a teacher."""
    teacher = make_classifier('vit', type='mmpretrain.ImageClassifier')
    model = make_classifier('vit', augments=[METHODS[name] for name in pair], teacher=teacher).train()
    copied = copy.deepcopy(model)
    images, samples = torch.randn(3, 3, 32, 32), make_samples([0, 1, 2])
    for _ in range(4):
        one, other = model.loss(images.clone(), samples), copied.loss(images.clone(), samples)
        assert one.keys() == other.keys()
        assert all(one[key].equal(other[key]) for key in one)
        for trained, losses in ((model, one), (copied, other)):
            trained.zero_grad()
            sum(losses.values()).backward()
            with torch.no_grad():
                for parameter in trained.parameters():
                    if parameter.grad is not None:
                        parameter -= 0.1 * parameter.grad
    assert {id(parameter) for parameter in model.parameters()}.isdisjoint(map(id, copied.parameters()))
