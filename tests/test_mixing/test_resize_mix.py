import numpy as np
import pytest
import reference_mixing as reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.registry import init_default_scope
from mmpretrain.models.utils.batch_augments import ResizeMix as StockResizeMix

from smmix_mm import functional
from smmix_mm.mixing import RandomMixing, ResizeMix, step_streams
from smmix_mm.registry import BATCH_AUGMENTS


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.tuples(st.integers(1, 24), st.integers(1, 24)))
def test_laws_of_a_step(seed, batch, size):
    """Outside the box images stay; the label counts its pixels; even where it is empty, or an image its own source."""
    images, targets = torch.rand(batch, 3, *size), torch.eye(batch)
    mixed = ResizeMix()(images.clone(), targets, None, step_streams(seed, 0))
    local = step_streams(seed, 0).local
    pairs, box = local.permutation(batch), ResizeMix().draw_box(size, local)
    top, left, bottom, right = box
    inside = torch.zeros(size, dtype=torch.bool)
    inside[top:bottom, left:right] = True
    assert torch.equal(mixed.images[:, :, ~inside], images[:, :, ~inside])
    share = inside.sum().item() / (size[0] * size[1])
    torch.testing.assert_close(mixed.targets, reference.soft_labels(targets, pairs.tolist(), [share] * batch))


def test_sides_are_uniform_and_centres_lie_anywhere():
    """The box is CutMix's of the squared ratio; not clipped, its sides are the ratio of the image's, made even."""
    stream, method = np.random.default_rng(0), ResizeMix(side_ratio=(0.2, 0.4))
    boxes = np.array([method.draw_box((200, 100), stream) for _ in range(3000)])
    heights, widths = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert heights.max() <= 80
    assert widths.max() <= 40
    unclipped = (boxes[:, 0] > 0) & (boxes[:, 2] < 200)
    assert heights[unclipped].min() >= 40
    assert not (heights[unclipped] % 2).any()
    assert boxes[:, 0].min() == boxes[:, 1].min() == 0
    assert boxes[:, 2].max() == 200
    assert boxes[:, 3].max() == 100
    assert ResizeMix(side_ratio=0.5).side_ratio == (0.5, 0.5)


def test_mmpretrains_method_of_that_name_pastes_twice_the_area():
    """As its docstring says, and stays usable under its own prefix."""
    stream, method = np.random.default_rng(0), ResizeMix()
    ours = np.mean([functional.box_share(method.draw_box((224, 224), stream), (224, 224)) for _ in range(3000)])
    np.random.seed(0)
    stock, targets = StockResizeMix(alpha=1.0, lam_min=0.1, lam_max=0.8), torch.eye(2)
    shares = []
    for seed in range(600):
        torch.manual_seed(seed)
        mixed = stock.mix(torch.zeros(2, 3, 224, 224), targets)[1]
        if mixed[0, 1] > 0:
            shares.append(mixed[0, 1].item())
    assert ours == pytest.approx(0.174, abs=0.01)
    assert np.mean(shares) == pytest.approx(0.353, abs=0.03)


def test_the_prefix_says_which_of_the_two_it_is():
    init_default_scope('mmpretrain')
    ours = RandomMixing([dict(type='smmix_mm.ResizeMix')]).methods[0]
    stock = RandomMixing([dict(type='mmpretrain.ResizeMix', alpha=1.0)]).methods[0]
    unnamed = RandomMixing([dict(type='ResizeMix', alpha=1.0)]).methods[0]
    assert isinstance(ours, ResizeMix)
    assert isinstance(stock.augment, StockResizeMix)
    assert isinstance(unnamed.augment, StockResizeMix)


def test_the_same_streams_give_the_same_batch():
    images, targets, method = torch.rand(4, 3, 16, 16), torch.eye(4), ResizeMix()
    first, again = (method(images.clone(), targets, None, step_streams(1, 2)) for _ in range(2))
    assert torch.equal(first.images, again.images)
    other = method(images.clone(), targets, None, step_streams(1, 2, rank=1))
    assert not torch.equal(first.images, other.images)


@pytest.mark.parametrize('side_ratio', [0, 1.1, -0.5, (0.8, 0.1), (0.0, 0.5), (0.5, 1.5), (0.1, 0.5, 0.8), '0.5', None])
def test_ratios_outside_their_range_are_an_error(side_ratio):
    with pytest.raises(ValueError, match='side_ratio of ResizeMix'):
        ResizeMix(side_ratio=side_ratio)


def test_settings():
    with pytest.raises(ValueError, match=r'interpolation of ResizeMix.*bicubic'):
        ResizeMix(interpolation='bicubic')
    method = BATCH_AUGMENTS.build(dict(type='smmix_mm.ResizeMix'))
    assert repr(method) == "ResizeMix(side_ratio=(0.1, 0.8), interpolation='nearest')"
