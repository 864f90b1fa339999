import copy

import numpy as np
import pytest
import reference_mixing as reference
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from smmix_mm.mixing import FMix, Streams, step_streams
from smmix_mm.registry import BATCH_AUGMENTS

many = settings(max_examples=40, deadline=None, derandomize=True)


class FixedShare:
    """A stream whose Beta distribution has one value."""

    def __init__(self, share, seed=0):
        self.share, self.rng = share, np.random.default_rng(seed)

    def beta(self, a, b):
        return self.share

    def __getattr__(self, name):
        return getattr(self.rng, name)


def streams_of(share, seed=0):
    return Streams(shared=None, local=FixedShare(share, seed))


def numbered(batch, size):
    """Images whose pixels say which image they come from, and one label each."""
    images = torch.arange(float(batch)).view(-1, 1, 1, 1).expand(batch, 2, *size).clone()
    return images, torch.eye(batch)


@pytest.mark.parametrize(('batch', 'size'), [(1, (8, 8)), (2, (12, 8)), (5, (7, 11)), (4, (32, 32))])
@pytest.mark.parametrize('settings', [dict(), dict(alpha=0.3, decay=1.5)])
def test_forward_equals_numpy(batch, size, settings):
    """Images and labels from the same draws, with NumPy's transform and a plain sort."""
    images, targets = torch.randn(batch, 3, *size), torch.eye(5)[torch.arange(batch) % 5]
    before = images.clone()
    for step in range(5):
        mixed = FMix(**settings)(images, targets, None, step_streams(3, step))

        stream = step_streams(3, step).local
        pairs = stream.permutation(batch).tolist()
        count = int(stream.beta(*[settings.get('alpha', 1.0)] * 2) * (size[0] * size[1]))
        noise = stream.standard_normal((*size, 2), dtype=np.float32)
        field = reference.low_frequency_field(noise, settings.get('decay', 3.0))
        order = sorted(range(size[0] * size[1]), key=lambda pixel: -field.flat[pixel])
        chosen = [(pixel // size[1], pixel % size[1]) for pixel in order[:count]]
        share = count / (size[0] * size[1])
        assert torch.equal(mixed.images, reference.paste_pixels(images, pairs, chosen))
        torch.testing.assert_close(mixed.targets, reference.soft_labels(targets, pairs, [share] * batch))
    assert torch.equal(images, before)


@many
@given(
    st.integers(1, 5),
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.floats(0, 1),
    st.integers(0, 2**32 - 1),
)
@example(5, (9, 10), 0.7, 0)  # 0.7 * 9 * 10 is 63, 0.7 * 90 a bit less
def test_labels_count_pixels(batch, size, share, seed):
    """One mask for the batch; the label has as much of an image as the mixed image has, and no more than was drawn."""
    images, targets = numbered(batch, size)
    mixed = FMix()(images, targets, None, streams_of(share, seed))
    area = size[0] * size[1]
    counts = [[(row[0] == image).sum().item() / area for image in range(batch)] for row in mixed.images]
    torch.testing.assert_close(mixed.targets, torch.tensor(counts))
    torch.testing.assert_close(mixed.targets.sum(dim=1), torch.ones(batch))
    pairs = streams_of(share, seed).local.permutation(batch)
    masks = [mixed.images[b, 0] != b for b in range(batch) if pairs[b] != b]
    for mask in masks:
        assert torch.equal(mask, masks[0])
        assert mask.sum().item() == int(share * area)


@pytest.mark.parametrize('share', [0.0, 1.0])
def test_a_mask_of_nothing_and_of_everything(share):
    images, targets = numbered(5, (6, 9))
    mixed = FMix()(images, targets, None, streams_of(share))
    expected = targets[streams_of(share).local.permutation(5)] if share else targets
    assert torch.equal(mixed.targets, expected)
    assert torch.equal(mixed.images[:, 0, 0, 0].long(), expected.argmax(dim=1))
    assert torch.equal(mixed.images, mixed.images[:, :1, :1, :1].expand_as(images))


def test_the_larger_the_decay_the_shorter_the_outline():
    images, targets = numbered(2, (64, 64))
    outlines = []
    for decay in (0.0, 1.5, 3.0):
        mixed = FMix(decay=decay)(images, targets, None, streams_of(0.5, seed=3))
        assert streams_of(0.5, seed=3).local.permutation(2)[0] == 1
        outlines.append((mixed.images[0, 0].diff(dim=0) != 0).sum().item())
    assert outlines[0] > 3 * outlines[1] > 9 * outlines[2] > 0


def test_the_same_streams_give_the_same_batch():
    images, targets = numbered(4, (16, 16))
    first, again = (FMix()(images, targets, None, step_streams(1, 2)) for _ in range(2))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.targets, again.targets)
    other = FMix()(images, targets, None, step_streams(1, 2, rank=1))
    assert not torch.equal(first.images, other.images)


def test_the_global_random_state_and_the_shared_stream_are_left_alone():
    images, targets = numbered(4, (8, 8))
    streams = step_streams(0, 0)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), copy.deepcopy(streams.shared.bit_generator.state)
    FMix()(images, targets, None, streams)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()
    assert streams.shared.bit_generator.state == states[2]


@pytest.mark.parametrize('alpha', [0, -1, float('inf'), float('nan'), '1', None])
def test_alpha_has_to_be_positive(alpha):
    with pytest.raises(ValueError, match='alpha of FMix'):
        FMix(alpha=alpha)


@pytest.mark.parametrize('decay', [-0.1, float('inf'), float('nan'), '3', None])
def test_decay_has_to_be_at_least_zero(decay):
    with pytest.raises(ValueError, match='decay of FMix'):
        FMix(decay=decay)


def test_defaults_are_the_published_settings():
    method = BATCH_AUGMENTS.build(dict(type='smmix_mm.FMix'))
    assert (method.alpha, method.decay) == (1, 3)
    assert not method.state_dict()


@pytest.mark.parametrize('family', ['vit', 'pvt'])
def test_a_training_step(make_classifier, make_samples, family):
    model = make_classifier(family, augments=[dict(type='smmix_mm.FMix')]).train()
    losses = model.loss(torch.randn(3, 3, 32, 32), make_samples([0, 1, 2]))
    assert set(losses) == {'loss_cls'}
    losses['loss_cls'].backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
