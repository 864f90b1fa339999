import numpy as np
import pytest
import reference_mixing as reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smmix_mm import functional

many = settings(max_examples=80, deadline=None, derandomize=True)


@pytest.mark.parametrize(
    'size', [(16, 16), (12, 20), (21, 9), (40, 64), (1, 8), (8, 1), (100, 130), (30, 200), (5, 300)]
)
def test_spectral_residual_equals_numpy(size):
    """On images that are shrunk to 64 columns, and on those that are too small to be."""
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    maps = functional.spectral_residual(images)
    for found, image in zip(maps, images, strict=True):
        expected = reference.spectral_residual(image.numpy())
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=1e-9 * expected.max())


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.uint8, torch.float32])
def test_spectral_residual_is_computed_in_single_precision(dtype):
    images = torch.randint(0, 256, (1, 3, 32, 48)).to(dtype)
    maps = functional.spectral_residual(images)
    assert maps.dtype == torch.float32
    torch.testing.assert_close(maps, functional.spectral_residual(images.double()).float(), rtol=1e-2, atol=1e-4)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert torch.equal(functional.spectral_residual(images), maps)


def test_brightness_and_contrast_change_nothing():
    images = torch.rand(2, 3, 40, 40, dtype=torch.float64)
    torch.testing.assert_close(
        functional.spectral_residual(5 * images - 3), functional.spectral_residual(images), rtol=1e-7, atol=1e-12
    )


def test_an_image_of_one_colour_is_finite():
    assert functional.spectral_residual(torch.full((1, 3, 20, 90), 0.7)).isfinite().all()


@pytest.mark.parametrize(('size', 'place'), [((64, 64), (40, 20)), ((96, 160), (70, 30)), ((300, 200), (60, 150))])
def test_the_peak_is_where_something_stands_out(size, place):
    """A small square on stripes with a little noise."""
    stripes = (torch.arange(size[1]) * (2 * torch.pi * 16 / size[1])).sin()
    image = stripes.expand(1, 3, *size) + 0.1 * torch.randn(1, 3, *size)
    image[:, :, place[0] - 4 : place[0] + 4, place[1] - 4 : place[1] + 4] = 1.5
    peak = functional.peak_pixels(functional.spectral_residual(image), size)[0]
    assert (peak - torch.tensor(place)).abs().max() <= 8


@many
@given(st.integers(1, 3), st.tuples(st.integers(1, 6), st.integers(1, 6)), st.integers(0, 2**32 - 1))
def test_peak_pixels_equal_loops(batch, grid, seed):
    """Row-major order decides ties; the pixel is inside the image, and of the cell it stands for."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randint(0, 3, (batch, *grid), generator=generator).float()
    size = tuple(int(side * factor) for side, factor in zip(grid, (3, 4.5), strict=True))
    peaks = functional.peak_pixels(maps, size)
    for found, scores in zip(peaks.tolist(), maps.tolist(), strict=True):
        cells = [(-scores[row][col], row, col) for row in range(grid[0]) for col in range(grid[1])]
        _, *cell = min(cells)
        for place, index, side, count in zip(found, cell, size, grid, strict=True):
            assert place == int((index + 0.5) * side / count)
            assert index * side / count <= place < (index + 1) * side / count


@many
@given(st.integers(0, 2**32 - 1), st.tuples(st.integers(1, 20), st.integers(1, 20)), st.floats(0, 1))
def test_box_mask_around_equals_the_box_of_the_host(seed, size, share):
    rng = np.random.default_rng(seed)
    centre = [int(rng.integers(side)) for side in size]
    mask, area = functional.box_mask_around(torch.tensor(centre), share, size)
    top, left, bottom, right = box = reference.box_around(centre, share, size)
    expected = torch.zeros(size, dtype=torch.bool)
    expected[top:bottom, left:right] = True
    assert torch.equal(mask, expected)
    assert area.item() == pytest.approx(expected.double().mean().item())
    assert box == functional.clipped_box(centre, share, size)


def test_the_blur_keeps_what_is_even_and_its_mass():
    """Farther than three standard deviations from the edges, where it fades."""
    even = functional.gaussian_blur(torch.full((1, 20, 30), 0.3, dtype=torch.float64), 2.0)[0]
    torch.testing.assert_close(even[6:-6, 6:-6], torch.full((8, 18), 0.3, dtype=torch.float64))
    assert 0 < even[0, 0] < even[0, 15] < even[5, 15] < 0.3
    point = torch.zeros(1, 41, 41, dtype=torch.float64)
    point[0, 20, 20] = 1
    blurred = functional.gaussian_blur(point, 2.0)
    assert blurred.sum().item() == pytest.approx(1)
    assert (blurred[0, 20, 22] / blurred[0, 20, 20]).item() == pytest.approx(np.exp(-0.5))
    torch.testing.assert_close(blurred, blurred.mT)
