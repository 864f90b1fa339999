"""A training step on a device that only it can read: what the host would have to wait for is an error.

torch's meta device stands in for a GPU. It has shapes but no values, so that reading one fails, and code takes the ways
that it takes on any device but the CPU. Where there is a GPU, torch's own check runs too.
"""

from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from smmix_mm.mixing.stock import StockMixing
from smmix_mm.registry import BATCH_AUGMENTS
from smmix_mm.streams import step_streams

# Settings for pictures of 32 x 32. PuzzleMix is missing: its graph cuts are the host's.
METHODS = [
    dict(type='mmpretrain.Mixup', alpha=0.8),
    dict(type='mmpretrain.CutMix', alpha=1.0),
    dict(type='mmpretrain.ResizeMix', alpha=1.0),
    dict(type='smmix_mm.SMMix'),
    dict(type='smmix_mm.SMMix', motivation_scale=0.5, motivated_by='teacher'),
    dict(type='smmix_mm.SMMix', label_reconstruction='transmix'),
    dict(type='smmix_mm.SMMix', label_reconstruction='tokenmix'),
    dict(type='smmix_mm.SMMix', placement='cutmix', region_rule='ratio'),
    dict(type='smmix_mm.SMMix', region_head='shared'),
    dict(type='smmix_mm.TransMix'),
    dict(type='smmix_mm.TokenMix', patch_size=8, extra_tokens=2),
    dict(type='smmix_mm.AttentiveMix', cell_size=8),
    dict(type='smmix_mm.SaliencyMix'),
    dict(type='smmix_mm.FMix'),
    dict(type='smmix_mm.ResizeMix'),
    dict(type='smmix_mm.AutoMix'),
]
STOCK = METHODS[:3]
# What methods read of a backbone differs by its family: attention, class attention, layers.
READING = [dict(type=f'smmix_mm.{name}') for name in ('SMMix', 'TransMix', 'AutoMix')]
STEPS = [
    (family, augment)
    for augment in METHODS
    for family in (['vit', 'pvt', 'cait', 'swin'] if augment in READING else ['vit'])
]
every_step = pytest.mark.parametrize(
    ('family', 'augment'), STEPS, ids=lambda part: part if isinstance(part, str) else '-'.join(map(str, part.values()))
)


# Where each finds the values that it copies to the device, past the dispatcher.
CREATORS = {torch.tensor: 0, torch.as_tensor: 0, torch.asarray: 0, torch.Tensor.new_tensor: 1}
INDEXING = (torch.Tensor.__getitem__, torch.Tensor.__setitem__)
COPIES = ('aten::copy_', 'aten::_to_copy')


@contextmanager
def forbid_waiting():
    """Host and device meet in copies to the device alone, and those do not wait; single numbers travel with a call."""
    with ForbidPythonsValues(), ForbidWaitingCalls():
        yield


class ForbidWaitingCalls(TorchDispatchMode):
    """Watches tensors, also in the backward pass."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        copies = func.name().startswith(COPIES)
        tensors, outputs = tensors_in((args, kwargs)), tensors_in(result)
        on_host = [tensor.shape for tensor in tensors if on_cpu(tensor) and (tensor.ndim or copies)]
        on_device = not all(map(on_cpu, tensors + outputs))
        without_waiting = kwargs.get('non_blocking') or (func.name().startswith('aten::copy_') and args[2:3] == (True,))
        assert not (on_host and on_device) or without_waiting, f'{func} waits: {on_host} on the host'
        return result


class ForbidPythonsValues(TorchFunctionMode):
    """Watches lists, arrays and numbers, which no tensor holds yet."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func in CREATORS:
            data = args[CREATORS[func]]
            copied = not on_cpu(result) and (not isinstance(data, torch.Tensor) or on_cpu(data))
            assert not copied, f'{func} waits: it copies {data}'
        if func in INDEXING and not on_cpu(args[0]):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            assert not any(isinstance(part, (list, np.ndarray)) for part in index), f'{func} waits: it copies {index}'
        return result


def tensors_in(tree):
    return [leaf for leaf in tree_flatten(tree)[0] if isinstance(leaf, torch.Tensor)]


def on_cpu(tensor):
    return tensor.device.type == 'cpu'


def batch(make_samples, device):
    samples = make_samples(range(3))
    for sample in samples:
        sample.set_gt_score(sample.gt_score.to(device))
    return torch.randn(3, 3, 32, 32, device=device), samples


def take_step(model, images, samples):
    losses = model.loss(images, samples)
    sum(losses.values()).backward()
    return losses


@every_step
def test_no_step_waits(make_classifier, make_samples, enter_run, monkeypatch, family, augment):
    enter_run(0, 0)
    teacher = make_classifier('vit', type='mmpretrain.ImageClassifier')
    model = make_classifier(family, augments=[augment], teacher=teacher).train().to('meta')
    teacher.to('meta')
    # Autocast, which is off here, knows no meta device.
    monkeypatch.setattr(torch, 'autocast', lambda *args, **kwargs: nullcontext())
    data = batch(make_samples, 'meta')
    with forbid_waiting():
        # The second one moves AutoMix's momentum model.
        for _ in range(2):
            losses = take_step(model, *data)
    assert all(loss.device.type == 'meta' for loss in losses.values())
    assert all(weight.grad is not None for weight in model.parameters() if weight.requires_grad)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@every_step
def test_no_step_waits_for_a_gpu(make_classifier, make_samples, enter_run, family, augment):
    enter_run(0, 0)
    teacher = make_classifier('vit', type='mmpretrain.ImageClassifier').cuda()
    model = make_classifier(family, augments=[augment], teacher=teacher).train().cuda()
    take_step(model, *batch(make_samples, 'cuda'))  # loads libraries
    data = batch(make_samples, 'cuda')
    torch.cuda.set_sync_debug_mode('error')
    try:
        take_step(model, *data)
    finally:
        torch.cuda.set_sync_debug_mode('default')


IMAGES, INDEX, NUMBER = torch.ones(3, 4, device='meta'), torch.tensor([2, 0, 1]), torch.tensor(2.0)
WAITING = {
    'index on the host': lambda: IMAGES[INDEX],
    'index in a list': lambda: IMAGES[[2, 0, 1]],
    'index in an array': lambda: IMAGES[:, np.array([2, 0, 1])],
    'assignment by a list': lambda: IMAGES.__setitem__([2, 0], 0.0),
    'assignment of values': lambda: IMAGES.__setitem__(0, torch.ones(4)),
    'index by a mask': lambda: IMAGES[IMAGES > 0],
    'positions': lambda: IMAGES.nonzero(),
    'unique': lambda: IMAGES.unique(),
    'comparison': lambda: torch.equal(IMAGES, IMAGES),
    'condition': lambda: bool((IMAGES > 0).any()),
    'number read': lambda: IMAGES.sum().item(),
    'copy to the host': lambda: IMAGES.cpu(),
    'copy into the host': lambda: torch.ones(3, 4).copy_(IMAGES),
    'copy': lambda: INDEX.to('meta'),
    'copy of a number': lambda: NUMBER.to('meta'),
    'copy in place': lambda: IMAGES[0].copy_(torch.ones(4)),
    'copy of a number in place': lambda: IMAGES[0, 0].copy_(NUMBER),
    'copy in place, told to wait': lambda: IMAGES[0].copy_(torch.ones(4), False),
    'tensor': lambda: torch.tensor([2, 0], device='meta'),
    'tensor of a number': lambda: torch.tensor(2.0, device='meta'),
    'as_tensor of a list': lambda: torch.as_tensor([2, 0], device='meta'),
    'as_tensor of an array': lambda: torch.as_tensor(np.ones(2), device='meta'),
    'as_tensor of a tensor': lambda: torch.as_tensor(INDEX, device='meta'),
    'asarray': lambda: torch.asarray([2, 0], device='meta'),
    'new_tensor': lambda: IMAGES.new_tensor([2.0, 0.0]),
}


@pytest.mark.parametrize('wait', WAITING)
def test_the_stand_in_notices_what_waits(wait):
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError), match=r'waits|[Mm]eta'), forbid_waiting():
        WAITING[wait]()


def test_the_stand_in_lets_pass_what_does_not_wait():
    with forbid_waiting():
        IMAGES[INDEX.to('meta', non_blocking=True)] * NUMBER
        IMAGES.clone()[0].copy_(torch.ones(4), non_blocking=True)
        IMAGES.clone()[:, 1:3] = 0.0
        torch.full((2,), 3.0, device='meta') + torch.as_tensor(IMAGES[0, :2])
        torch.tensor([2, 0])[[1, 0]]


@pytest.mark.parametrize('augment', STOCK, ids=lambda augment: augment['type'])
def test_stock_methods_mix_as_ever(augment):
    """What they draw and make does not change by being sent to the device."""
    stock = BATCH_AUGMENTS.build(augment)
    images = torch.randn(6, 3, 32, 32)
    targets = torch.eye(6)
    mixed = StockMixing(stock)(images.clone(), targets, None, step_streams(3, 5))
    seeds = step_streams(3, 5).local.integers(2**32, size=3).tolist()
    np.random.seed(seeds[1])
    torch.manual_seed(seeds[2])
    expected_images, expected_targets = stock(images.clone(), targets)
    assert mixed.images.equal(expected_images) and mixed.targets.equal(expected_targets)
