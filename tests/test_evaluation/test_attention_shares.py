"""Shares of attention on hand-made attention, and the pasted regions of every method against the mixed images."""

import copy

import pytest
import torch
from conftest import METHODS

from smmix_mm.evaluation import held_by_windows, pasted_parts, token_parts
from smmix_mm.functional import attention_share
from smmix_mm.mixing import step_streams

# A 2 x 3 grid of tokens of 2 x 2 pixels.
ATTENTION = torch.tensor([[[1.0, 2.0, 3.0], [4.0, 0.0, 10.0]]])


def test_share_of_attention_inside_a_mask_of_pixels():
    mask = torch.zeros(1, 4, 6, dtype=torch.bool)
    # All of the token with 1, half of that with 2, a quarter of that with 10.
    mask[0, 0:2, 0:3] = True
    mask[0, 3, 5] = True
    parts = token_parts(mask, (2, 3))
    assert parts.tolist() == [[[1.0, 0.5, 0.0], [0.0, 0.0, 0.25]]]
    assert attention_share(ATTENTION, parts).item() == pytest.approx((1 + 1 + 2.5) / 20)
    assert parts.mean().item() == pytest.approx(mask.float().mean().item())


def test_soft_masks_keep_their_values():
    mask = torch.rand(2, 8, 8, dtype=torch.float64)
    parts = token_parts(mask, (2, 4))
    assert parts[1, 1, 2].item() == pytest.approx(mask[1, 4:8, 4:6].mean().item(), abs=1e-6)


def test_what_windows_hold_by_hand():
    content = torch.tensor([[[0.5, 0.0, 0.0], [0.5, 1.0, 0.25]]])
    held = held_by_windows(ATTENTION, content, (2, 1))
    # The columns hold 1, 1 and 0.25, and have 5, 2 and 13 of the attention.
    assert held.most.tolist() == [0.25]
    assert held.least.tolist() == [1.0]
    assert held.random.tolist() == [pytest.approx(0.75)]


@pytest.mark.parametrize('region', [(1, 1), (2, 3), (4, 2), (5, 6)])
def test_what_windows_hold_by_brute_force(region):
    attention, content = torch.rand(3, 5, 6), torch.rand(3, 5, 6)
    held = held_by_windows(attention, content, region)
    for b in range(3):
        windows = [
            (
                attention[b, i : i + region[0], j : j + region[1]].sum(),
                content[b, i : i + region[0], j : j + region[1]].sum(),
            )
            for i in range(5 - region[0] + 1)
            for j in range(6 - region[1] + 1)
        ]
        best = max(inside for _, inside in windows)
        assert held.most[b].item() == pytest.approx((max(windows)[1] / best).item(), abs=1e-6)
        assert held.least[b].item() == pytest.approx((min(windows)[1] / best).item(), abs=1e-6)
        mean = sum(inside for _, inside in windows) / len(windows) / best
        assert held.random[b].item() == pytest.approx(mean.item(), abs=1e-6)


@pytest.fixture
def mix(make_classifier):
    """Mixes a batch by one method: unmixed images, mixed ones, pasted parts."""

    def mix_by(augment, step, count=5):
        augments, teacher = [copy.deepcopy(augment)], None
        if augment['type'] in ('smmix_mm.TokenMix', 'smmix_mm.AttentiveMix'):
            teacher = make_classifier(type='mmpretrain.ImageClassifier')
        model = make_classifier(augments=augments, teacher=teacher).eval()
        method = model.mixing.methods[0]
        images, targets = torch.rand(count, 3, 32, 32), torch.eye(5)[torch.arange(count) % 5]
        with torch.no_grad():
            mixed = model.mix(method, images.clone(), targets, step_streams(1, step))
        return images, mixed, pasted_parts(method, mixed, count, step_streams(1, step))

    return mix_by


SAME_PLACE = ['CutMix', 'TransMix', 'TokenMix', 'AttentiveMix', 'SaliencyMix', 'FMix', 'PuzzleMix', 'AutoMix']
RESIZED = ['StockResizeMix', 'ResizeMix']


@pytest.mark.parametrize('name', SAME_PLACE)
def test_parts_say_how_the_images_were_mixed(mix, name):
    """Some source, blended into the target by the parts, gives the mixed image."""
    # Without what moves or blends beside the mask.
    settings = dict(PuzzleMix=dict(transport=False), AutoMix=dict(min_share=0))
    augment = METHODS[name] | settings.get(name, {})
    areas = []
    for step in range(3):
        images, mixed, parts = mix(augment, step)
        assert parts.shape == (5, 32, 32)
        areas += parts.mean(dim=(1, 2)).tolist()
        for target, found, part in zip(images, mixed.images[:5], parts, strict=True):
            errors = [(torch.lerp(target, source, part) - found).abs().max().item() for source in images]
            assert min(errors) < 1e-5
    assert 0 < sum(areas) / len(areas) < 1


@pytest.mark.parametrize('name', [*RESIZED, 'SMMix'])
def test_parts_of_regions_from_another_place(mix, name):
    """Everything outside is the target's, and what changed is inside."""
    images, mixed, parts = mix(METHODS[name], 0)
    pasted = 0
    for target, found, part in zip(images, mixed.images, parts, strict=True):
        # mmpretrain's ResizeMix has mixed it with itself.
        if name == 'StockResizeMix' and not part.any():
            continue
        changed = (found != target).any(dim=0)
        assert part[~changed].mean() < 0.1
        assert (part[changed] == 1).all()
        pasted += part.sum().item()
    assert pasted > 0


def test_share_of_the_area_is_that_of_the_label(mix):
    images, mixed, parts = mix(METHODS['SMMix'], 3)
    assert parts.mean(dim=(1, 2)).tolist() == pytest.approx([mixed.share] * len(images))


def test_an_image_that_mmpretrain_mixed_with_itself_has_no_region(mix):
    images, mixed, parts = mix(METHODS['CutMix'], 0, count=1)
    assert mixed.images.equal(images)
    assert parts.sum() == 0


def test_methods_without_regions(mix):
    with pytest.raises(ValueError, match='Mixup blends whole images, so there is no pasted region'):
        mix(METHODS['Mixup'], 0)
    # Shares below it are mixed by plain Mixup.
    *_, parts = mix(METHODS['AutoMix'] | dict(min_share=0.5), 0)
    assert parts.shape == (5, 32, 32)
    assert parts.sum() == 0
