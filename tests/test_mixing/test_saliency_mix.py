import types

import cv2
import numpy as np
import pytest
import reference_mixing as reference
import torch

from smmix_mm import functional
from smmix_mm.mixing import SaliencyMix, Streams, step_streams
from smmix_mm.registry import BATCH_AUGMENTS


class BrightestPixel:
    """Stands in for OpenCV's detector: what is bright is salient. Remembers what it saw."""

    seen = []

    def computeSaliency(self, image):  # noqa: N802
        self.seen.append(image)
        return True, image.astype(np.float32).sum(axis=2) / 765


@pytest.fixture
def contrib(monkeypatch):
    """An OpenCV with contrib modules."""
    monkeypatch.setattr(BrightestPixel, 'seen', [])
    saliency = types.SimpleNamespace(StaticSaliencyFineGrained_create=BrightestPixel)
    monkeypatch.setattr(cv2, 'saliency', saliency, raising=False)


def with_bright_pixels(batch, size):
    """Random images, each with one pixel that outshines all others, and where that is."""
    images = torch.rand(batch, 3, *size) - 0.5
    places = [divmod(torch.randint(size[0] * size[1], ()).item(), size[1]) for _ in range(batch)]
    for image, (row, col) in zip(images, places, strict=True):
        image[:, row, col] = 3
    return images, places


@pytest.mark.parametrize(('batch', 'size'), [(1, (8, 8)), (2, (12, 8)), (5, (7, 11)), (3, (20, 70))])
@pytest.mark.parametrize('saliency', ['spectral_residual', 'fine_grained'])
@pytest.mark.usefixtures('contrib')
def test_forward_equals_loops(batch, size, saliency):
    """Images and labels from the same draws; the source of the first image decides for all."""
    images, places = with_bright_pixels(batch, size)
    targets = torch.eye(5)[torch.arange(batch) % 5]
    before = images.clone()
    for step in range(6):
        mixed = SaliencyMix(saliency=saliency)(images, targets, None, step_streams(2, step))

        stream = step_streams(2, step).local
        pairs = stream.permutation(batch).tolist()
        centre = places[pairs[0]]
        if saliency == 'spectral_residual':
            scores = reference.spectral_residual(images[pairs[0]].double().numpy())
            cell = np.unravel_index(scores.argmax(), scores.shape)
            centre = [int((i + 0.5) * side / count) for i, side, count in zip(cell, size, scores.shape, strict=True)]
        chosen = reference.box_pixels(reference.box_around(centre, stream.beta(1.0, 1.0), size))
        share = len(chosen) / (size[0] * size[1])
        assert torch.equal(mixed.images, reference.paste_pixels(images, pairs, chosen))
        torch.testing.assert_close(mixed.targets, reference.soft_labels(targets, pairs, [share] * batch))
        torch.testing.assert_close(mixed.targets.sum(dim=1), torch.ones(batch))
    assert torch.equal(images, before)


@pytest.mark.usefixtures('contrib')
def test_fine_grained_sees_the_image_stretched_to_bytes():
    images, places = with_bright_pixels(3, (9, 14))
    peaks = SaliencyMix(saliency='fine_grained').find_peaks(images)
    assert peaks.tolist() == [list(place) for place in places]
    for image, seen in zip(images.numpy(), BrightestPixel.seen, strict=True):
        assert seen.dtype == np.uint8
        assert seen.shape == (9, 14, 3)
        assert seen.flags.c_contiguous
        expected = (image - image.min()) / (image.max() - image.min()) * 255
        np.testing.assert_allclose(seen, expected.transpose(1, 2, 0), atol=0.5001)


@pytest.mark.usefixtures('contrib')
def test_fine_grained_takes_an_image_of_one_colour():
    assert SaliencyMix(saliency='fine_grained').find_peaks(torch.ones(1, 3, 8, 8)).tolist() == [[0, 0]]
    assert BrightestPixel.seen[0].max() == 0


@pytest.mark.skipif(not hasattr(cv2, 'saliency'), reason='this OpenCV has no contrib modules')
def test_the_real_detector_finds_a_square():
    image = torch.zeros(1, 3, 64, 96)
    image[:, :, 40:50, 60:70] = 1
    row, col = SaliencyMix(saliency='fine_grained').find_peaks(image)[0].tolist()
    assert 38 <= row <= 52
    assert 58 <= col <= 72


def test_fine_grained_without_contrib_is_refused_when_built(monkeypatch):
    monkeypatch.delattr(cv2, 'saliency', raising=False)
    with pytest.raises(ImportError, match=r"saliency='fine_grained'.*opencv-contrib-python-headless"):
        SaliencyMix(saliency='fine_grained')
    SaliencyMix()


def test_the_wanted_share_comes_from_the_beta_distribution():
    """Far from its ends: what is clipped is less than what was drawn, never more."""
    images, targets = torch.rand(2, 3, 40, 40), torch.eye(2)
    for alpha in (0.2, 1.0):
        for step in range(20):
            mixed = SaliencyMix(alpha=alpha)(images, targets, None, step_streams(0, step))
            stream = step_streams(0, step).local
            crossed = stream.permutation(2)[0] == 1
            share = 1 - mixed.targets[0, 0].item() if crossed else 0
            assert share <= stream.beta(alpha, alpha) + 1e-6


class FixedShare:
    """A stream whose Beta distribution has one value."""

    def __init__(self, share, rng):
        self.share, self.rng = share, rng

    def beta(self, *_):
        return self.share

    def __getattr__(self, name):
        return getattr(self.rng, name)


@pytest.mark.parametrize('share', [0.0, 1.0])
@pytest.mark.parametrize('size', [(8, 8), (16, 12)])
@pytest.mark.parametrize('saliency', ['spectral_residual', 'fine_grained'])
@pytest.mark.usefixtures('contrib')
def test_a_share_of_nothing_or_everything(saliency, size, share):
    """Around the pixel in the middle: a box without pixels, or of all of them."""
    images = torch.arange(4.0).view(-1, 1, 1, 1).expand(4, 3, *size).clone()
    images[:, :, size[0] // 2, size[1] // 2] += 50
    targets, streams = torch.eye(4), step_streams(0, 0)
    streams = Streams(shared=streams.shared, local=FixedShare(share, streams.local))
    mixed = SaliencyMix(saliency=saliency)(images.clone(), targets, None, streams)
    pairs = step_streams(0, 0).local.permutation(4).tolist()
    assert pairs != [0, 1, 2, 3]
    assert torch.equal(mixed.images, images[pairs] if share else images)
    assert torch.equal(mixed.targets, targets[pairs] if share else targets)


@pytest.mark.usefixtures('contrib')
def test_a_share_of_everything_off_the_middle_is_what_lies_inside():
    """Half of the rows and three quarters of the columns: the peak is at the top, a quarter from the left."""
    images = torch.arange(2.0).view(-1, 1, 1, 1).expand(2, 3, 8, 8).clone()
    images[:, :, 0, 2] += 50
    step = next(step for step in range(20) if step_streams(0, step).local.permutation(2).tolist() == [1, 0])
    streams = step_streams(0, step)
    streams = Streams(shared=streams.shared, local=FixedShare(1.0, streams.local))
    mixed = SaliencyMix(saliency='fine_grained')(images.clone(), torch.eye(2), None, streams)
    expected = reference.paste_pixels(images, [1, 0], reference.box_pixels((0, 0, 4, 6)))
    assert torch.equal(mixed.images, expected)
    torch.testing.assert_close(mixed.targets[0], torch.tensor([1 - 24 / 64, 24 / 64]))


def test_nothing_of_the_box_waits_for_the_device(monkeypatch):
    """No number is read out of a tensor, nothing is brought to the host and no indices are searched for."""
    images, targets = torch.rand(3, 3, 16, 24), torch.eye(3)

    def refuse(*_, **__):
        raise AssertionError('would wait')

    for name in ('item', 'tolist', 'cpu', 'numpy', 'nonzero', '__bool__', '__int__', '__float__', '__index__'):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    mixed = SaliencyMix()(images, targets, None, step_streams(0, 0))
    monkeypatch.undo()
    assert mixed.images.isfinite().all()


def test_the_same_streams_give_the_same_batch():
    images, targets = torch.rand(4, 3, 16, 16), torch.eye(4)
    first, again = (SaliencyMix()(images, targets, None, step_streams(1, 2)) for _ in range(2))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.targets, again.targets)
    others = [SaliencyMix()(images, targets, None, step_streams(1, 2, rank=rank)).images for rank in range(1, 4)]
    assert any(not torch.equal(first.images, other) for other in others)


def test_half_precision_images_are_copied_pixel_by_pixel():
    images = torch.rand(4, 3, 16, 16).half()
    mixed = SaliencyMix()(images, torch.eye(4), None, step_streams(0, 1))
    pairs = step_streams(0, 1).local.permutation(4)
    assert mixed.images.dtype == torch.float16
    assert mixed.targets.dtype == torch.float32
    assert ((mixed.images == images) | (mixed.images == images[pairs])).all()
    assert functional.spectral_residual(images).dtype == torch.float32


@pytest.mark.parametrize('alpha', [0, -1, float('inf'), float('nan'), '1', None])
def test_alpha_has_to_be_positive(alpha):
    with pytest.raises(ValueError, match='alpha of SaliencyMix'):
        SaliencyMix(alpha=alpha)


@pytest.mark.parametrize('saliency', ['fine-grained', 'opencv', None])
def test_unknown_saliencies_are_an_error(saliency):
    with pytest.raises(ValueError, match=f'saliency of SaliencyMix.*{saliency}'):
        SaliencyMix(saliency=saliency)


def test_defaults():
    method = BATCH_AUGMENTS.build(dict(type='smmix_mm.SaliencyMix'))
    assert (method.alpha, method.saliency) == (1, 'spectral_residual')
    assert not method.state_dict()


@pytest.mark.parametrize('family', ['vit', 'pvt'])
def test_a_training_step(make_classifier, make_samples, family):
    model = make_classifier(family, augments=[dict(type='smmix_mm.SaliencyMix')]).train()
    losses = model.loss(torch.randn(3, 3, 32, 32), make_samples([0, 1, 2]))
    assert set(losses) == {'loss_cls'}
    losses['loss_cls'].backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
