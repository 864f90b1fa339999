"""Linear layers by oneDNN: values and gradients, which layers, and with what."""

import copy
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from marks import needs_one_dnn
from mmcv.cnn import Linear
from torch import nn
from torch.profiler import ProfilerActivity, profile

from smmix_mm.engine import OneDNNLinear
from smmix_mm.engine.hooks import one_dnn_linear_hook
from smmix_mm.engine.hooks.one_dnn_linear_hook import ConvolvedLinear
from smmix_mm.registry import HOOKS

CONVOLUTION = 'aten::mkldnn_convolution'


def start(model):
    HOOKS.build(dict(type='smmix_mm.OneDNNLinear')).before_run(SimpleNamespace(model=model))


def operators(run):
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        run()
    return {event.key for event in profiler.key_averages()}


@needs_one_dnn
@settings(max_examples=30, deadline=None)
@given(
    shape=st.lists(st.integers(1, 5), max_size=3),
    channels=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    bias=st.booleans(),
    strided=st.booleans(),
)
def test_values_and_gradients(shape, channels, bias, strided):
    """For every number of axes; so small that torch convolves by itself."""
    layer = nn.Linear(*channels, bias=bias)
    start(layer)
    x = torch.randn(*shape, 2 * channels[0])
    x = (x[..., ::2] if strided else x[..., : channels[0]].contiguous()).requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(one_dnn_linear_hook, 'FEWEST', 0)
        patch.setattr(one_dnn_linear_hook, 'NOT_CONVOLVED', 0)
        compare(layer, x)


def compare(layer, x):
    """Compares with torch's own matrix product in double precision."""
    found = layer(x)
    grad = torch.randn_like(found)
    inputs = (x, *layer.parameters())
    exact = [value.detach().double().requires_grad_() for value in inputs]
    expected = F.linear(*exact)
    assert found.is_contiguous()
    grads = torch.autograd.grad(found, inputs, grad), torch.autograd.grad(expected, exact, grad.double())
    for value, reference in ((found, expected), *zip(*grads, strict=True)):
        torch.testing.assert_close(value.double(), reference, rtol=1e-4, atol=1e-4 * reference.abs().max().item())


@needs_one_dnn
@pytest.mark.parametrize('threads', [1, 2])
def test_only_large_layers_in_float32_are_convolved(threads, request):
    """In one thread too, where torch computes other convolutions of 1 x 1 by another library."""
    before = torch.get_num_threads()
    request.addfinalizer(lambda: torch.set_num_threads(before))
    torch.set_num_threads(threads)
    layer, plain = nn.Linear(64, 64), nn.Linear(64, 64)
    plain.load_state_dict(layer.state_dict())
    start(layer)
    large, small = torch.randn(2, 2048, 64), torch.randn(2, 2047, 64)
    assert CONVOLUTION in operators(lambda: layer(large))
    compare(layer, large.clone().requires_grad_())
    compare(layer, large.view(1, 64, 4096).transpose(1, 2).requires_grad_())
    wide = nn.Linear(64, 4096)
    start(wide)
    assert CONVOLUTION not in operators(lambda: wide(large[0, :320]))
    assert CONVOLUTION in operators(lambda: wide(large[0, :321]))
    assert CONVOLUTION not in operators(lambda: layer(small))
    assert layer(small).equal(plain(small))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert CONVOLUTION not in operators(lambda: layer(large))
        assert layer(large).equal(plain(large))
    assert layer.double()(large.double()).equal(plain.double()(large.double()))
    assert layer(large[:0].double()).shape == (0, 2048, 64)


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


@needs_one_dnn
def test_layers_of_a_model(make_classifier):
    """Those of a teacher too, and of mmcv; subclasses stay. Names in checkpoints stay, and copies have own weights."""
    teacher = make_classifier('vit', type='mmpretrain.ImageClassifier')
    model = make_classifier('vit', augments=[dict(type='smmix_mm.SMMix')], teacher=teacher)
    model.extra = Doubled(2, 2)
    linear = [module for module in model.modules() if type(module) in (nn.Linear, Linear)]
    linear += [module for module in model.teacher.model.modules() if type(module) in (nn.Linear, Linear)]
    assert any(type(module) is Linear for module in linear)
    names = list(model.state_dict())
    start(model)
    assert all(type(module) is ConvolvedLinear for module in linear)
    assert type(model.extra) is Doubled
    assert list(model.state_dict()) == names
    twin = copy.deepcopy(model)
    weight = twin.backbone.layers[0].ffn.layers[0][0].weight
    with torch.no_grad():
        weight.zero_()
    assert model.backbone.layers[0].ffn.layers[0][0].weight.any()


def test_torch_without_one_dnn_is_refused(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, 'is_available', lambda: False)
    with pytest.raises(ValueError, match='OneDNNLinear needs a torch with oneDNN'):
        OneDNNLinear().before_run(SimpleNamespace(model=nn.Linear(2, 2)))
