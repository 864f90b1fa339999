"""Corruptions by their strength, and by what they depend on."""

import random

import numpy as np
import pytest
import torch
from mmpretrain.registry import TRANSFORMS
from PIL import Image, ImageEnhance
from scipy.ndimage import gaussian_filter

from smmix_mm.datasets.corrupt import STRENGTHS

SEVERITIES = (1, 2, 3, 4, 5)


def corrupt(image, corruption, severity=3):
    transform = TRANSFORMS.build(dict(type='smmix_mm.Corrupt', corruption=corruption, severity=severity))
    return transform(dict(img=image))['img']


def picture(height=48, width=64, seed=0):
    """Smooth colours between 60 and 190, so that noise is seldom clipped."""
    noise = np.random.default_rng(seed).standard_normal((height, width, 3))
    smooth = gaussian_filter(noise, (4, 4, 0))
    return (125 + 65 * smooth / abs(smooth).max()).astype(np.uint8)


@pytest.mark.parametrize('corruption', STRENGTHS)
def test_the_same_image_is_corrupted_alike(corruption):
    """Whatever was drawn before, and wherever its pixels lie; the image itself is left as it was."""
    image, other = picture(), picture(seed=1)
    kept = image.copy()
    first = corrupt(image, corruption)
    np.random.seed(7)
    torch.manual_seed(7)
    random.seed(7)
    states = np.random.get_state()[1].copy(), torch.get_rng_state(), random.getstate()
    corrupt(other, corruption)
    # As Pillow's RGB is given, turned to BGR.
    assert (corrupt(np.ascontiguousarray(image[..., ::-1])[..., ::-1], corruption) == first).all()
    assert (image == kept).all()
    assert first.dtype == np.uint8 and first.shape == image.shape and (first != image).any()
    assert (np.random.get_state()[1] == states[0]).all()
    assert torch.get_rng_state().equal(states[1]) and random.getstate() == states[2]


@pytest.mark.parametrize('corruption', STRENGTHS)
def test_each_severity_changes_more(corruption):
    image = picture().astype(int)
    changes = [abs(corrupt(picture(), corruption, severity) - image).mean() for severity in SEVERITIES]
    assert changes == sorted(set(changes))
    assert changes[0] > 0


@pytest.mark.parametrize('severity', SEVERITIES)
def test_noise_has_its_deviation(severity):
    image = np.full((200, 200, 3), 128, dtype=np.uint8)
    noise = corrupt(image, 'noise', severity).astype(float) - 128
    # Noise beyond black and white is clipped.
    expected = (255 * STRENGTHS['noise'][severity - 1] * np.random.default_rng(1).standard_normal(10**6)).clip(
        -128, 127
    )
    assert noise.std() == pytest.approx(expected.std(), rel=0.02)
    assert noise.mean() == pytest.approx(0, abs=1)
    # Independent in pixels and channels.
    for shifted in (noise[1:, ..., 0], noise[:-1, ..., 1]):
        assert abs(np.corrcoef(noise[:-1, ..., 0].ravel(), shifted.ravel())[0, 1]) < 0.03


def test_noise_of_images_and_corruptions_differs():
    grey = [np.full((32, 32, 3), value, dtype=np.uint8) for value in (128, 129)]
    one, other = (corrupt(image, 'noise').astype(float) - image for image in grey)
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.1


@pytest.mark.parametrize('severity', SEVERITIES)
def test_blur_is_gaussian(severity):
    image = picture(96, 128).astype(np.float32)
    sigma = STRENGTHS['blur'][severity - 1] * 96
    expected = gaussian_filter(image, (sigma, sigma, 0), mode='mirror', truncate=4)
    assert abs(corrupt(image, 'blur', severity) - expected).max() < 0.1


@pytest.mark.parametrize('severity', SEVERITIES)
def test_contrast_is_as_in_pillow(severity):
    image = picture()
    expected = ImageEnhance.Contrast(Image.fromarray(image[..., ::-1])).enhance(STRENGTHS['contrast'][severity - 1])
    assert abs(corrupt(image, 'contrast', severity).astype(int) - np.array(expected)[..., ::-1]).max() <= 1


@pytest.mark.parametrize('severity', SEVERITIES)
def test_occlusion_covers_its_part(severity):
    corners = []
    for seed in range(40):
        image = picture(60, 90, seed)
        changed = corrupt(image, 'occlusion', severity)
        mean = image.mean(axis=(0, 1)).round()
        rows, columns = np.nonzero((changed != image).any(axis=2))
        box = changed[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert (box == mean).all()
        # Pixels that had the mean colour may narrow the box that is found.
        share = STRENGTHS['occlusion'][severity - 1]
        assert box.shape[0] / 60 == pytest.approx(share**0.5, abs=0.04)
        assert box.shape[1] / 90 == pytest.approx(share**0.5, abs=0.04)
        corners.append((rows.min(), columns.min()))
    # All over the image, up to its last row and column.
    free = np.array([60, 90]) * (1 - share**0.5)
    assert (np.min(corners, axis=0) < 0.15 * free + 1).all()
    assert (np.max(corners, axis=0) > 0.85 * free - 1).all()


def test_the_smallest_images():
    for corruption in STRENGTHS:
        assert corrupt(np.full((1, 1, 3), 90, dtype=np.uint8), corruption, 5).shape == (1, 1, 3)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match=r"corruption of Corrupt has to be one of \('noise', .*, but got 'fog'"):
        corrupt(picture(), 'fog')
    for severity in (0, 6, 2.5, '3'):
        with pytest.raises(ValueError, match='severity of Corrupt has to be 1, 2, 3, 4 or 5, but got'):
            corrupt(picture(), 'noise', severity)
