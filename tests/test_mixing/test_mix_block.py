import math

import pytest
import reference
import torch

from smmix_mm.mixing import MixBlock
from smmix_mm.registry import MODELS


def make_block(channels=6, **settings):
    """With all parameters random, and those of queries and keys large, so that the attention is far from uniform."""
    block = MixBlock(channels, **settings)
    with torch.no_grad():
        for name, parameter in block.named_parameters():
            parameter.add_(torch.randn_like(parameter), alpha=1.0 if 'query_key' in name else 0.3)
    return block


def masks_by_loops(block, source, target, share):
    """Position by position, image by image, in double precision."""
    weights = {name: value.detach().double() for name, value in block.named_parameters()}
    batch, channels, rows, cols = source.shape
    places = [(row, col) for row in range(rows) for col in range(cols)]
    masks = torch.zeros(batch, rows, cols, dtype=torch.float64)

    def embed(features, place, own_share):
        pixel = features[image, :, place[0], place[1]].double()
        if 'norm.weight' in weights:
            centred = pixel - pixel.sum() / channels
            pixel = centred / (centred.square().sum() / channels + 1e-5).sqrt()
            pixel = pixel * weights['norm.weight'] + weights['norm.bias']
        return [*pixel.tolist(), own_share]

    def project(part, vector):
        matrix, bias = weights[f'{part}.weight'].tolist(), weights[f'{part}.bias'].tolist()
        return [sum(a * b for a, b in zip(row, vector, strict=True)) + c for row, c in zip(matrix, bias, strict=True)]

    for image in range(batch):
        keys = [project('query_key', embed(source, place, share)) for place in places]
        values = [project('value', embed(source, place, share))[0] for place in places]
        for place in places:
            query = project('query_key', embed(target, place, 1 - share))
            products = [sum(a * b for a, b in zip(query, key, strict=True)) / math.sqrt(len(query)) for key in keys]
            attended = sum(a * b for a, b in zip(reference.softmax(products), values, strict=True))
            masks[image, place[0], place[1]] = 1 / (1 + math.exp(-attended))
    return masks


@pytest.mark.parametrize(
    ('batch', 'grid', 'reduction', 'share', 'norm'),
    [(1, (1, 1), 1, 0.5, False), (2, (3, 3), 2, 0.1, True), (3, (2, 5), 2, 0.75, False), (2, (4, 2), 5, 0.33, True)],
)
def test_masks_equal_loops(batch, grid, reduction, share, norm):
    """On any grid; channels that the reduction does not divide are rounded down."""
    block = make_block(reduction=reduction, norm=norm)
    source, target = torch.randn(2, batch, 6, *grid) * 3 + 1
    mask = block(source, target, share)
    assert block.query_key.out_features == 6 // reduction
    assert mask.shape == (batch, *grid)
    torch.testing.assert_close(mask.double(), masks_by_loops(block, source, target, share), rtol=1e-4, atol=1e-5)


def test_each_position_of_the_target_asks_all_of_the_source():
    """The source's positions may change places; with the target's the mask's do."""
    block = make_block()
    source, target = torch.randn(2, 2, 6, 2, 3)
    mask, order = block(source, target, 0.4), torch.tensor([4, 2, 0, 5, 1, 3])

    def reorder(maps):
        return maps.flatten(-2)[..., order].unflatten(-1, (2, 3))

    torch.testing.assert_close(block(reorder(source), target, 0.4), mask)
    torch.testing.assert_close(block(source, reorder(target), 0.4), reorder(mask))
    assert mask.std() > 0.01


def test_a_uniform_source_is_seen_equally_everywhere():
    """All values are the same then, whatever attends to them."""
    block = make_block()
    source = torch.randn(2, 6, 1, 1).expand(2, 6, 2, 3)
    mask = block(source, torch.randn(2, 6, 2, 3), 0.4)
    torch.testing.assert_close(mask, mask[:, :1, :1].expand_as(mask))


def test_what_is_not_symmetric():
    """The block knows which image is the source: with images and shares swapped the parts do not add up to one."""
    block = make_block()
    first, second = torch.randn(2, 2, 6, 2, 3)
    total = block(first, second, 0.3) + block(second, first, 0.7)
    assert (total - 1).abs().max() > 0.05
    assert (block(first, second, 0.3) - block(first, second, 0.6)).abs().max() > 0.01


def test_features_may_be_large_and_the_mask_stays_between_0_and_1():
    block = make_block(norm=True)
    mask = block(1e4 * torch.randn(3, 6, 4, 4), 1e4 * torch.randn(3, 6, 4, 4), 0.5)
    assert mask.min() > 0
    assert mask.max() < 1


def test_autocast_leaves_the_block_in_full_precision():
    block = make_block()
    source, target = torch.randn(2, 2, 6, 2, 3)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        mask = block(source, target, 0.4)
    assert torch.equal(mask, block(source, target, 0.4))
    assert block(source.bfloat16(), target.bfloat16(), 0.4).dtype == torch.float32


def test_every_parameter_learns():
    block = make_block()
    (block(*torch.randn(2, 2, 6, 2, 3), 0.4) * torch.randn(2, 2, 3)).sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in block.parameters())


def test_it_is_registered():
    block = MODELS.build(dict(type='smmix_mm.MixBlock', in_channels=384))
    # One layer for queries and keys, one for values, each with the share as one channel more.
    assert sum(parameter.numel() for parameter in block.parameters()) == 386 * 192 + 386
    assert block.query_key.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert block.query_key.weight.mean().item() == pytest.approx(0, abs=2e-4)
    assert block.value.weight.std().item() == pytest.approx(0.01, rel=0.15)
    assert not block.query_key.bias.any()
    assert not block.value.bias.any()
    normed = MODELS.build(dict(type='smmix_mm.MixBlock', in_channels=384, norm=True))
    assert sum(parameter.numel() for parameter in normed.parameters()) == 2 * 384 + 386 * 192 + 386


@pytest.mark.parametrize('reduction', [0, -1, 7, 1.5, None])
def test_reduction_outside_its_range_is_an_error(reduction):
    with pytest.raises(ValueError, match=f'reduction of MixBlock.*1 to 6.*{reduction}'):
        MixBlock(6, reduction=reduction)
