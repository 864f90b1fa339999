import itertools

import pytest
import reference_mixing as reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smmix_mm import functional

many = settings(max_examples=40, deadline=None, derandomize=True)


def energies_of(costs, down, right, labels):
    """Energy of one image's labelling ``(n, n)`` from costs of blocks and weights between them."""
    blocks, steps = labels.shape[0], costs.shape[-1] - 1
    shares = labels.double() / steps
    alone = sum(costs[row, col, labels[row, col]] for row in range(blocks) for col in range(blocks))
    apart = (down * shares.diff(dim=0).square()).sum() + (right * shares.diff(dim=1).square()).sum()
    return (alone + apart).item()


@pytest.mark.parametrize(('blocks', 'size', 'cell'), [(2, (8, 12), 4), (4, (8, 8), 4), (2, (6, 14), 4), (2, (2, 2), 1)])
@pytest.mark.parametrize('num_labels', [2, 3, 4])
def test_puzzle_energy_equals_its_definition(blocks, size, cell, num_labels):
    """Up to a constant, which no labelling changes."""
    images = torch.rand(3, 2, *size, dtype=torch.float64)
    saliency = functional.block_saliency(torch.randn(3, 2, *size, dtype=torch.float64), blocks)
    pairs, share, weights = torch.tensor([1, 2, 0]), 0.3, (3.0, 0.9, 0.4)
    colours = functional.block_colours(images, blocks, cell)
    energy = functional.puzzle_energy(saliency, colours, pairs, share, num_labels, *weights)

    for image, source in enumerate(pairs.tolist()):
        gaps = []
        for _ in range(6):
            labels = torch.randint(0, num_labels, (blocks, blocks))
            shares = [[label / (num_labels - 1) for label in row] for row in labels.tolist()]
            expected = reference.puzzle_energy(
                images[image],
                images[source],
                (saliency[image].tolist(), saliency[source].tolist()),
                share,
                shares,
                weights,
                num_labels,
                cell,
            )
            gaps.append(energies_of(*(part[image] for part in energy), labels) - expected)
        assert gaps == pytest.approx([gaps[0]] * len(gaps), abs=1e-12)


def test_defaults_of_the_energy_are_the_published_weights():
    saliency, colours = torch.rand(2, 2, 2), torch.rand(2, 3, 2, 2, 2, 2)
    pairs = torch.tensor([1, 0])
    default = functional.puzzle_energy(saliency, colours, pairs, 0.4)
    given_weights = functional.puzzle_energy(saliency, colours, pairs, 0.4, 3, beta=1.2, gamma=0.5, eta=0.2)
    assert all(torch.equal(first, second) for first, second in zip(default, given_weights, strict=True))


@many
@given(st.integers(1, 4), st.sampled_from([2, 4]), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_weights_between_blocks_are_never_negative(batch, blocks, share, seed):
    """For any colours, even out of range; and all costs stay finite for shares of 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    images = 10 * torch.randn(batch, 3, 16, 16, generator=generator)
    saliency = functional.block_saliency(torch.randn(batch, 3, 16, 16, generator=generator), blocks)
    energy = functional.puzzle_energy(
        saliency, functional.block_colours(images, blocks), torch.randperm(batch, generator=generator), share
    )
    assert energy[1].min() >= 0
    assert energy[2].min() >= 0
    assert all(part.isfinite().all() for part in energy)


@pytest.mark.parametrize(('blocks', 'size'), [(2, (4, 10)), (4, (8, 8)), (1, (3, 5))])
def test_block_saliency_equals_loops(blocks, size):
    gradients = torch.randn(3, 3, *size)
    saliency = functional.block_saliency(gradients, blocks)
    for found, gradient in zip(saliency, gradients, strict=True):
        torch.testing.assert_close(found, torch.tensor(reference.block_saliency(gradient, blocks)))
    torch.testing.assert_close(saliency.sum(dim=(1, 2)), torch.ones(3))
    torch.testing.assert_close(functional.block_saliency(1000 * gradients, blocks), saliency)


@pytest.mark.parametrize('nothing', [0.0, float('nan'), float('inf')])
def test_gradients_that_say_nothing_are_even(nothing):
    gradients = torch.randn(2, 3, 8, 8)
    gradients[0] = nothing if nothing == 0 else gradients[0]
    gradients[0, 0, 0, 0] = nothing
    saliency = functional.block_saliency(gradients, 4)
    assert saliency[0].unique().tolist() == [1 / 16]
    torch.testing.assert_close(saliency[1], functional.block_saliency(gradients[1:], 4)[0])


def test_colours_of_cells_take_the_largest_part_of_a_block():
    images = torch.rand(1, 2, 20, 28)
    # Sides of the blocks are 10 and 14: cells of 2 x 2 are the largest up to 4 that divide them.
    colours = functional.block_colours(images, 2)
    assert colours.shape == (1, 2, 2, 5, 2, 7)
    torch.testing.assert_close(colours[0, 1, 1, 0, 0, 3], images[0, 1, 10:12, 6:8].mean())


def test_border_jumps_are_between_the_pixels_that_touch():
    """Of an image of four even blocks and one of the same with a seam elsewhere: each jump is told by hand."""
    first = torch.zeros(1, 1, 8, 8)
    first[..., :4, 4:], first[..., 4:, :4], first[..., 4:, 4:] = 0.1, 0.3, 0.7
    first[..., 0, 0] = 100  # does not touch a border
    colours = functional.block_colours(first, 2, cell=1)
    down, right = functional.border_jumps(colours, colours)
    torch.testing.assert_close(down, torch.tensor([[[0.3, 0.6]]]))
    torch.testing.assert_close(right, torch.tensor([[[0.1], [0.4]]]))
    down, right = functional.border_jumps(colours, functional.block_colours(torch.ones(1, 1, 8, 8), 2, cell=1))
    torch.testing.assert_close(down, torch.tensor([[[1.0, 0.9]]]))
    torch.testing.assert_close(right, torch.tensor([[[1.0], [0.7]]]))


@many
@given(
    st.integers(1, 3),
    st.sampled_from([(2, (4, 6)), (3, (6, 9)), (4, (8, 4))]),
    st.sampled_from([torch.contiguous_format, torch.channels_last]),
    st.integers(0, 2**32 - 1),
)
def test_arrange_blocks_equals_loops(batch, layout, memory_format, seed):
    blocks, size = layout
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (batch, 2, *size), generator=generator).to(memory_format=memory_format)
    order = torch.stack([torch.randperm(blocks**2, generator=generator) for _ in range(batch)])
    moved = functional.arrange_blocks(images, order)
    expected = [reference.arrange_blocks(image, row, blocks) for image, row in zip(images, order.tolist(), strict=True)]
    assert torch.equal(moved, torch.stack(expected))
    assert moved.is_contiguous(memory_format=memory_format)
    back = functional.arrange_blocks(moved, order.argsort(dim=1))
    assert torch.equal(back, images)


def test_transport_cost_of_every_order_equals_loops():
    saliency = torch.rand(1, 2, 2, dtype=torch.float64)
    saliency /= saliency.sum()
    visible = torch.tensor([[[True, False], [True, True]]])
    cost = functional.transport_cost(saliency, visible, weight=0.3)[0]
    orders = list(itertools.permutations(range(4)))
    totals = [sum(cost[place, block].item() for place, block in enumerate(order)) for order in orders]
    best = reference.best_order(saliency[0].tolist(), visible[0].tolist(), 0.3)
    assert min(totals) == pytest.approx(totals[orders.index(best)])
    # Nothing moved, nothing paid for: what is visible is all there is.
    shown = saliency[0][visible[0]].sum().item()
    assert totals[orders.index((0, 1, 2, 3))] == pytest.approx(-shown)
