"""Mixed precision on the CPU: what it computes, and the loss scale."""

import pytest
import torch
from marks import needs_cpu_float16
from mmengine.optim import build_optim_wrapper
from torch import nn

from smmix_mm.compat import CPU_FLOAT16


def build(model, dtype='float16', optimizer=None, **settings):
    optimizer = optimizer or dict(type='SGD', lr=0.25, momentum=0.5)
    return build_optim_wrapper(
        model, dict(type='smmix_mm.AmpOptimWrapper', dtype=dtype, optimizer=optimizer, **settings)
    )


def scale_of(wrapper):
    return wrapper.loss_scaler.get_scale()


def update(wrapper, model, gradient):
    """One update by a loss whose gradient at the weight is this number."""
    wrapper.update_params((model.weight * gradient).sum())


def weights_by_hand(start, gradients, lr=0.25, momentum=0.5):
    buffer, weight = None, start
    for gradient in gradients:
        buffer = gradient if buffer is None else momentum * buffer + gradient
        weight = weight - lr * buffer
    return weight


@needs_cpu_float16
def test_an_overflow_halves_the_scale_and_changes_nothing_else():
    model = nn.Linear(3, 1, bias=False)
    wrapper, start = build(model, loss_scale=dict(init_scale=2.0**14)), model.weight.detach().clone()
    update(wrapper, model, 1.0)
    for _ in range(2):
        update(wrapper, model, 1e38)
    assert scale_of(wrapper) == 2.0**12
    update(wrapper, model, 3.0)
    torch.testing.assert_close(model.weight.detach(), weights_by_hand(start, [1.0, 3.0]))
    assert scale_of(wrapper) == 2.0**12


@needs_cpu_float16
def test_the_scale_grows_after_enough_good_updates_in_a_row():
    model = nn.Linear(3, 1, bias=False)
    wrapper, scales = build(model, loss_scale=dict(init_scale=8.0, growth_interval=3)), []
    for gradient in (1.0, 1.0, 1e38, 1.0, 1.0, 1.0, 1.0):
        update(wrapper, model, gradient)
        scales.append(scale_of(wrapper))
    assert scales == [8, 8, 4, 4, 4, 8, 8]


@needs_cpu_float16
def test_a_restored_scaler_goes_on_where_it_was():
    def run(steps, state=None):
        model = nn.Linear(3, 1, bias=False)
        wrapper, scales = build(model, loss_scale=dict(init_scale=8.0, growth_interval=3)), []
        if state is not None:
            wrapper.load_state_dict(state)
        for _ in range(steps):
            update(wrapper, model, 1.0)
            scales.append(scale_of(wrapper))
        return wrapper, scales

    whole = run(9)[1]
    first, scales = run(5)
    assert whole == scales + run(4, first.state_dict())[1] == [8, 8, 16, 16, 16, 32, 32, 32, 64]


@needs_cpu_float16
@pytest.mark.parametrize('loss_scale', [4.0, 4])
def test_a_fixed_scale_stays(loss_scale):
    model = nn.Linear(3, 1, bias=False)
    wrapper, start = build(model, loss_scale=loss_scale), model.weight.detach().clone()
    for gradient in (1.0, float('inf'), 2.0):
        update(wrapper, model, gradient)
    assert scale_of(wrapper) == 4.0
    torch.testing.assert_close(model.weight.detach(), weights_by_hand(start, [1.0, 2.0]))


@needs_cpu_float16
def test_gradients_are_clipped_in_their_own_scale():
    model = nn.Linear(4, 1, bias=False)
    start = model.weight.detach().clone()
    wrapper = build(model, clip_grad=dict(max_norm=1.0), optimizer=dict(type='SGD', lr=1.0))
    update(wrapper, model, 3.0)  # a norm of 6
    torch.testing.assert_close(model.weight.detach(), start - 0.5, rtol=1e-5, atol=1e-6)


@needs_cpu_float16
@pytest.mark.parametrize('saved_as, loaded_as', [('bfloat16', 'float16'), ('float16', 'bfloat16')])
def test_either_dtype_goes_on_from_the_other(saved_as, loaded_as):
    model = nn.Linear(3, 1, bias=False)
    saved = build(model, saved_as)
    update(saved, model, 1.0)
    loaded = build(model, loaded_as)
    loaded.load_state_dict(saved.state_dict())
    buffers = [wrapper.optimizer.state[model.weight]['momentum_buffer'] for wrapper in (saved, loaded)]
    assert buffers[0].equal(buffers[1])
    update(loaded, model, 1.0)


@pytest.mark.parametrize('dtype', [None, 'bfloat16', torch.bfloat16])
def test_bfloat16_is_the_default_and_needs_no_scale(dtype):
    model = nn.Linear(3, 1, bias=False)
    wrapper, start = build(model, dtype), model.weight.detach().clone()
    with wrapper.optim_context(model):
        assert model(torch.ones(2, 3)).dtype == torch.bfloat16
    assert model(torch.ones(2, 3)).dtype == torch.float32
    assert wrapper.scale_loss(torch.ones(())) == 1 and not wrapper.loss_scaler.is_enabled()
    update(wrapper, model, 1.0)
    torch.testing.assert_close(model.weight.detach(), weights_by_hand(start, [1.0]))


def test_gradients_accumulate():
    model = nn.Linear(3, 1, bias=False)
    wrapper, start = build(model, 'bfloat16', accumulative_counts=2), model.weight.detach().clone()
    update(wrapper, model, 1.0)
    assert model.weight.equal(start)
    update(wrapper, model, 3.0)
    torch.testing.assert_close(model.weight.detach(), weights_by_hand(start, [2.0]))


@pytest.mark.parametrize(
    'settings, error, message',
    [
        (dict(dtype='float64'), ValueError, "dtype of AmpOptimWrapper has to be 'bfloat16' or 'float16' on the CPU"),
        (dict(dtype='float33'), ValueError, "but got 'float33'"),
        (dict(dtype='bfloat16', loss_scale='static'), TypeError, "loss_scale has to be .* but got 'static'"),
        (dict(dtype='bfloat16', loss_scale=True), TypeError, 'loss_scale has to be a number, .* but got True'),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, error, message):
    with pytest.raises(error, match=message):
        build(nn.Linear(1, 1), **settings)


@pytest.mark.skipif(CPU_FLOAT16, reason='this torch scales losses on the CPU')
def test_half_precision_without_a_scaler_is_refused():
    with pytest.raises(RuntimeError, match="dtype='float16' on the CPU needs a loss scaler"):
        build(nn.Linear(1, 1), 'float16')
