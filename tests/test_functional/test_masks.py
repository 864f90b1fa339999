import numpy as np
import pytest
import reference_mixing as reference
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from mmpretrain.models.utils.batch_augments import CutMix

from smmix_mm import functional

many = settings(max_examples=60, deadline=None, derandomize=True)
sides = st.integers(1, 12)


@st.composite
def boxes(draw):
    """An image size and a box in it, maybe empty, maybe everything."""
    size = draw(sides), draw(sides)
    top, bottom = sorted((draw(st.integers(0, size[0])), draw(st.integers(0, size[0]))))
    left, right = sorted((draw(st.integers(0, size[1])), draw(st.integers(0, size[1]))))
    return size, (top, left, bottom, right)


@st.composite
def masked_pairs(draw):
    """Targets, sources, and a mask for all images or one for each, of pixels or of tokens."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    batch, grid = draw(st.integers(1, 4)), (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    patch = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    images, sources = torch.randn(2, batch, 2, grid[0] * patch[0], grid[1] * patch[1], generator=generator)
    if draw(st.booleans()):
        images, sources = (batch.to(memory_format=torch.channels_last) for batch in (images, sources))
    mask = torch.rand(batch if draw(st.booleans()) else 1, *grid, generator=generator)
    mask = mask.squeeze(0) if len(mask) == 1 and draw(st.booleans()) else mask
    return images, sources, mask, patch


@many
@given(boxes(), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_resized_sources_by_loops(size_and_box, batch, seed):
    """Each pixel of the box is the source's at the same part of the whole, rounded down; all others stay."""
    size, (top, left, bottom, right) = size_and_box
    generator = torch.Generator().manual_seed(seed)
    images, pairs = torch.randn(batch, 2, *size, generator=generator), torch.randperm(batch, generator=generator)
    expected = images.clone()
    for row in range(top, bottom):
        for col in range(left, right):
            from_row = (row - top) * size[0] // (bottom - top)
            from_col = (col - left) * size[1] // (right - left)
            expected[:, :, row, col] = images[pairs][:, :, from_row, from_col]
    mixed = images.clone()
    assert functional.paste_resized_(mixed, (top, left, bottom, right), pairs) is mixed
    assert torch.equal(mixed, expected)


def test_sources_may_be_resized_bilinearly():
    """Half the size is then the mean of each four pixels."""
    images = torch.rand(2, 3, 8, 8)
    mixed = functional.paste_resized_(images.clone(), (4, 0, 8, 4), torch.tensor([1, 0]), 'bilinear')
    torch.testing.assert_close(mixed[:, :, 4:, :4], F.avg_pool2d(images, 2).flip(0))
    assert torch.equal(mixed[:, :, :4], images[:, :, :4])


@many
@given(sides, sides, st.floats(0, 1), st.data())
def test_clipped_box_is_that_of_cutmix(height, width, share, data):
    """mmpretrain's, for the same centre and the same share."""
    centre = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    with pytest.MonkeyPatch.context() as patch:
        drawn = iter(centre)
        patch.setattr(np.random, 'randint', lambda low, high, size=None: next(drawn))
        top, bottom, left, right = CutMix(alpha=1.0).rand_bbox((height, width), 1 - share)
    # The other way round the share would be rounded.
    box = functional.clipped_box(centre, 1 - (1 - share), (height, width))
    assert box == (top, left, bottom, right)


@many
@given(boxes(), sides, sides)
def test_box_mask_is_true_where_the_token_finds_its_pixel_inside(case, rows, cols):
    size, box = case
    pasted = reference.box_pixels(box)
    mask = functional.box_mask(box, size, (rows, cols))
    expected = [[(i * size[0] // rows, j * size[1] // cols) in pasted for j in range(cols)] for i in range(rows)]
    assert mask.tolist() == expected

    pixels = functional.box_mask(box, size)
    assert {tuple(place) for place in pixels.nonzero().tolist()} == pasted
    assert functional.box_share(box, size) == len(pasted) / (size[0] * size[1])


@pytest.mark.parametrize('grid', [(14, 14), (7, 7), (56, 28)])
def test_box_mask_samples_as_torch_does(grid):
    box = (13, 50, 131, 224)
    pixels = functional.box_mask(box, (224, 224))
    expected = F.interpolate(pixels[None, None].float(), size=grid, mode='nearest')[0, 0]
    assert torch.equal(functional.box_mask(box, (224, 224), grid).float(), expected)


@many
@given(boxes(), st.integers(1, 5), st.booleans(), st.randoms(use_true_random=False))
def test_paste_box_writes_the_sources_pixels_into_the_box_alone(case, batch, with_pairs, random):
    size, box = case
    images = torch.randn(batch, 2, *size)
    pairs = random.sample(range(batch), batch) if with_pairs else list(range(batch))[::-1]
    before = images.clone()
    result = functional.paste_box_(images, box, torch.tensor(pairs) if with_pairs else None)
    assert result is images
    inside = functional.box_mask(box, size)
    for target, source in enumerate(pairs):
        assert torch.equal(images[target][:, inside], before[source][:, inside])
        assert torch.equal(images[target][:, ~inside], before[target][:, ~inside])


@many
@given(masked_pairs())
def test_mix_masked_takes_each_pixel_from_one_image(case):
    images, sources, mask, patch = case
    mask = mask > 0.5
    before = images.clone()
    mixed = functional.mix_masked(images, sources, mask)
    rows = mask.expand(len(images), *mask.shape[-2:]).tolist()
    for image in range(len(images)):
        for i in range(images.shape[2]):
            for j in range(images.shape[3]):
                taken = sources if rows[image][i // patch[0]][j // patch[1]] else images
                assert torch.equal(mixed[image, :, i, j], taken[image, :, i, j])
    assert torch.equal(images, before)
    assert mixed.stride() == images.stride() or 1 in images.shape
    assert torch.equal(functional.mix_masked(images, sources, mask.float()), mixed)


@many
@given(masked_pairs())
def test_mix_masked_mixes_in_part(case):
    images, sources, mask, patch = case
    mixed = functional.mix_masked(images, sources, mask)
    whole = mask.expand(len(images), *mask.shape[-2:]).repeat_interleave(patch[0], 1).repeat_interleave(patch[1], 2)
    torch.testing.assert_close(mixed, whole[:, None] * sources + (1 - whole[:, None]) * images)


@pytest.mark.parametrize('dtype', [torch.uint8, torch.float16, torch.bfloat16, torch.float64])
def test_bool_masks_take_images_of_any_dtype(dtype):
    images = torch.arange(16).view(1, 1, 4, 4).to(dtype)
    mask = torch.tensor([[True, False], [False, False]])
    mixed = functional.mix_masked(images, 100 + images, mask)
    assert mixed.dtype == dtype
    assert mixed[0, 0].tolist() == [[100, 101, 2, 3], [104, 105, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]]


def test_soft_masks_keep_the_dtype_of_the_images():
    images = torch.zeros(1, 3, 4, 4, dtype=torch.float16)
    assert functional.mix_masked(images, images, torch.rand(2, 2)).dtype == torch.float16


def test_gradients_flow_through_a_soft_mask():
    images, sources = torch.randn(2, 3, 2, 4, 4, dtype=torch.float64)
    mask = torch.rand(3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda mask: functional.mix_masked(images, sources, mask), mask)


def test_a_mask_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r'divide the sides.*3 x 2 for images of 4 x 4'):
        functional.mix_masked(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4), torch.zeros(3, 2, dtype=torch.bool))


@many
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.integers(1, 4), st.data())
def test_strongest_cells_are_the_first_of_a_sorted_list(seed, batch, rows, cols, levels, data):
    """Few levels, so that many tie."""
    scores = torch.randint(0, levels, (batch, rows, cols), generator=torch.Generator().manual_seed(seed)).float()
    count = data.draw(st.integers(0, rows * cols))
    found = functional.strongest_cells(scores, count)
    assert found.shape == scores.shape
    for image in range(batch):
        values = scores[image].flatten().tolist()
        best = sorted(range(len(values)), key=lambda cell: (-values[cell], cell))[:count]
        assert found[image].flatten().nonzero().flatten().tolist() == sorted(best)
