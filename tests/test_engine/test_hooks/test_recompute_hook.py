"""Activations that are computed again: when, and with what methods; equality is tested in test_acceleration.py."""

import copy
from types import SimpleNamespace

import pytest
import torch

from smmix_mm.engine import RecomputeActivations

BLOCKS = dict(vit='backbone.layers', pvt='backbone.block2', cait='backbone.blocks', swin='backbone.stages.0.blocks')


def start(model, modules):
    RecomputeActivations(modules).before_train(SimpleNamespace(model=model))


def gradients(model, images, samples, autocast=False):
    torch.manual_seed(1)
    with torch.autocast('cpu', dtype=torch.bfloat16, enabled=autocast):
        losses = model.loss(images.clone(), samples)
    sum(losses.values()).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize('autocast', [False, True])
@pytest.mark.parametrize('family', BLOCKS)
@pytest.mark.parametrize('method', ['SMMix', 'TransMix', 'PuzzleMix', 'AutoMix'])
def test_gradients_stay(make_classifier, make_samples, family, method, autocast):
    """Also of PuzzleMix, which asks for those at the images alone, and under autocast."""
    settings = dict(augments=[dict(type=f'smmix_mm.{method}')], backbone=dict(drop_path_rate=0.3))
    model, data = make_classifier(family, **settings).train(), (torch.randn(3, 3, 32, 32), make_samples(range(3)))
    plain = copy.deepcopy(model)
    start(model, BLOCKS[family])
    found, expected = (gradients(part, *data, autocast) for part in (model, plain))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0, msg=name)


def test_blocks_run_again_in_the_backward_pass_alone(make_classifier, make_samples):
    model = make_classifier('vit', augments=[dict(type='smmix_mm.SMMix')]).train()
    start(model, 'backbone.layers')
    runs = []
    model.backbone.layers[0].ffn.register_forward_pre_hook(lambda *args: runs.append('first'))
    model.backbone.layers[2].ffn.register_forward_pre_hook(lambda *args: runs.append('last'))
    losses = model.loss(torch.randn(2, 3, 32, 32), make_samples(range(2)))
    assert runs == ['first', 'last'] * 2  # the motivation and the training pass
    sum(losses.values()).backward()
    assert runs == ['first', 'last'] * 2 + ['last', 'first']
    with torch.no_grad():
        model(torch.randn(2, 3, 32, 32))
    assert len(runs) == 8


@torch.no_grad()
def test_a_copy_runs_its_own_weights(make_classifier):
    """With gradients and without."""
    model, images = make_classifier('vit', augments=[]).eval(), torch.randn(2, 3, 32, 32)
    expected = model(images)
    start(model, ['backbone.layers', 'head'])
    twin = copy.deepcopy(model)
    for parameter in twin.parameters():
        parameter.zero_()
    for enabled in (False, True):
        with torch.set_grad_enabled(enabled):
            assert not twin(images).any()
            assert model(images).equal(expected)


def test_a_forward_that_is_no_method_is_refused(make_classifier):
    model = make_classifier('vit')
    model.backbone.norm1.forward = torch.relu
    with pytest.raises(TypeError, match=r'but LayerNorm has <built-in method relu'):
        start(model, 'backbone.norm1')


def test_it_keeps_fewer_activations(make_classifier, make_samples):
    def saved(model):
        sizes = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: (sizes.update({tensor.data_ptr(): tensor.numel()}), tensor)[1], lambda tensor: tensor
        ):
            losses = model.loss(torch.randn(8, 3, 32, 32), make_samples([0] * 8))
        assert losses
        return sum(sizes.values())

    model = make_classifier('vit', augments=[]).train()
    before = saved(model)
    start(model, 'backbone.layers')
    assert saved(model) < before / 2


def test_a_module_that_is_not_there_is_refused(make_classifier):
    with pytest.raises(ValueError, match=r"names 'backbone\.blocks', but MixingClassifier has no such module"):
        start(make_classifier('vit'), 'backbone.blocks')
