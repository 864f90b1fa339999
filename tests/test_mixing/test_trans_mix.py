import numpy as np
import pytest
import reference
import reference_mixing
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmpretrain.models.utils.batch_augments import CutMix

from smmix_mm import functional
from smmix_mm.mixing import TransMix, step_streams
from smmix_mm.models.classifiers.motivation import classify
from smmix_mm.registry import BATCH_AUGMENTS
from smmix_mm.structures import Features

CLASSES = 5
LABELS = [0, 3, 1, 4, 2]
TRANSMIX = dict(type='smmix_mm.TransMix')

many = settings(max_examples=50, deadline=None, derandomize=True)


def one_hot(batch):
    return torch.eye(CLASSES)[LABELS[:batch]]


def seen(attention):
    """What relabel reads of the features."""
    return Features(feats=(), tokens=torch.empty(0), grid=tuple(attention.shape[1:]), class_attention=attention)


def mix(images, targets, step=0, **settings):
    """TransMix asks the model nothing before it mixes."""
    method = TransMix(**settings)
    return method, method(images.clone(), targets, None, step_streams(0, step))


def with_box(box, images, targets, attention):
    """Images and labels of a step that draws this box."""
    method = TransMix()
    method.draw_box = lambda size, stream: box
    mixed = method(images.clone(), targets, None, step_streams(0, 0))
    return mixed, method.relabel(seen(attention), mixed)


@pytest.mark.parametrize(
    ('batch', 'size', 'grid'),
    [(4, (8, 8), (4, 4)), (5, (8, 8), (8, 8)), (1, (8, 8), (2, 2)), (3, (6, 12), (3, 4)), (2, (10, 7), (4, 3))],
)
def test_a_step_equals_loops(batch, size, grid):
    """Also on grids that do not divide the image."""
    images, targets = torch.randn(batch, 3, *size), one_hot(batch)
    for step in range(20):
        attention = torch.rand(batch, *grid)
        method, mixed = mix(images, targets, step)
        expected, labels = reference_mixing.trans_mix(images, targets, mixed.source_box, attention)
        assert torch.equal(mixed.images, expected)
        torch.testing.assert_close(method.relabel(seen(attention), mixed), labels)


@many
@given(st.integers(0, 10**6), st.integers(1, 5), st.sampled_from([(8, 8), (6, 12), (5, 3)]))
def test_laws_of_the_labels(step, batch, size):
    """Each image's two shares are in [0, 1] and sum to one; the attention's scale does not matter."""
    attention = torch.rand(batch, *size) + 1e-3
    targets = one_hot(batch)
    method, mixed = mix(torch.randn(batch, 3, *size), targets, step)
    labels = method.relabel(seen(attention), mixed)
    torch.testing.assert_close(labels.sum(1), torch.ones(batch))
    assert (labels >= 0).all()
    assert (labels <= 1 + 1e-6).all()
    torch.testing.assert_close(method.relabel(seen(3 * attention), mixed), labels)
    if batch % 2:
        torch.testing.assert_close(labels[batch // 2], targets[batch // 2])

    area = functional.box_share(mixed.source_box, size)
    torch.testing.assert_close(mixed.targets, area * targets.flip(0) + (1 - area) * targets)
    # Even attention agrees with the area where tokens are pixels.
    torch.testing.assert_close(method.relabel(seen(torch.ones(batch, *size)), mixed), mixed.targets)


def test_attention_outside_the_box_speaks_for_the_target():
    """A quarter of the area, pasted where nobody, or everybody, looks."""
    images, targets = torch.randn(2, 3, 8, 8), one_hot(2)
    inside = functional.box_mask((0, 4, 4, 8), (8, 8), (4, 4)).float().expand(2, 4, 4)
    _, unseen = with_box((0, 4, 4, 8), images, targets, 1 - inside)
    _, watched = with_box((0, 4, 4, 8), images, targets, inside)
    torch.testing.assert_close(unseen, 0.125 * targets.flip(0) + 0.875 * targets)
    torch.testing.assert_close(watched, 0.625 * targets.flip(0) + 0.375 * targets)


@pytest.mark.parametrize('box', [(3, 3, 3, 6), (0, 0, 0, 0), (8, 8, 8, 8)])
def test_an_empty_box_leaves_images_and_labels(box):
    images, targets = torch.randn(3, 3, 8, 8), one_hot(3)
    mixed, labels = with_box(box, images, targets, torch.rand(3, 4, 4))
    assert torch.equal(mixed.images, images)
    assert torch.equal(labels, targets)
    assert torch.equal(mixed.targets, targets)


def test_a_box_of_everything_reverses_images_and_labels():
    images, targets = torch.randn(3, 3, 8, 8), one_hot(3)
    mixed, labels = with_box((0, 0, 8, 8), images, targets, torch.rand(3, 4, 4))
    assert torch.equal(mixed.images, images.flip(0))
    torch.testing.assert_close(labels, targets.flip(0))


def test_the_box_is_drawn_as_cutmix_draws_it():
    """Areas and places of mmpretrain's CutMix and ours in tenths of the range: two samples of one distribution."""
    size, count = (28, 20), 4000
    method, stock = TransMix(alpha=1.0), CutMix(alpha=1.0)
    stream = np.random.default_rng(0)
    ours = [method.draw_box(size, stream) for _ in range(count)]
    theirs = []
    for _ in range(count):
        (top, bottom, left, right), _ = stock.cutmix_bbox_and_lam(size, np.random.beta(1, 1))
        theirs.append((top, left, bottom, right))
    for measure in (
        lambda box: functional.box_share(box, size),
        lambda box: (box[0] + box[2]) / 2 / size[0],
        lambda box: (box[1] + box[3]) / 2 / size[1],
    ):
        first, second = (
            np.histogram([measure(box) for box in boxes], bins=10, range=(0, 1))[0] for boxes in (ours, theirs)
        )
        kept = first + second > 0
        distance = ((first - second)[kept] ** 2 / (first + second)[kept]).sum()
        # The 99.9 % quantile with 9 degrees of freedom is 27.9.
        assert distance < 27.9


def test_the_streams_decide_and_the_local_one_alone():
    images, targets = torch.randn(4, 3, 16, 16), one_hot(4)
    boxes = [mix(images, targets, step)[1].source_box for step in range(20)]
    assert boxes == [mix(images, targets, step)[1].source_box for step in range(20)]
    assert len(set(boxes)) > 15

    streams = step_streams(0, 0)
    before = streams.shared.bit_generator.state
    TransMix()(images, targets, None, streams)
    assert streams.shared.bit_generator.state == before


def test_nothing_is_read_back_from_the_device():
    """Tensors without values mix all the same."""
    images, targets = torch.empty(3, 3, 8, 8, device='meta'), torch.empty(3, CLASSES, device='meta')
    method = TransMix()
    mixed = method(images, targets, None, step_streams(0, 0))
    labels = method.relabel(seen(torch.empty(3, 4, 4, device='meta')), mixed)
    assert labels.shape == targets.shape
    assert labels.is_meta


def test_large_alpha_pastes_half_the_area():
    stream = np.random.default_rng(0)
    shares = [functional.box_share(TransMix(alpha=1e6).draw_box((400, 400), stream), (400, 400)) for _ in range(200)]
    assert max(shares) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize('alpha', [0, -1.0, float('nan'), float('inf'), '1', None])
def test_a_bad_alpha_is_refused(alpha):
    with pytest.raises(ValueError, match='alpha of TransMix has to be a positive number'):
        TransMix(alpha=alpha)


def test_a_config_builds_it():
    method = BATCH_AUGMENTS.build(dict(type='smmix_mm.TransMix', alpha=0.5))
    assert isinstance(method, TransMix)
    assert 'alpha=0.5' in repr(method)


@pytest.mark.parametrize('family', ['vit', 'pvt', 'swin'])
@pytest.mark.parametrize('batch', [4, 5, 1])
def test_a_training_step_equals_one_by_loops(make_classifier, make_samples, enter_run, family, batch):
    """Loss and gradients of the very step, the attention being read from the images that were mixed."""
    enter_run(seed=3, iteration=7)
    model = make_classifier(family, augments=TRANSMIX).train()
    images, targets = torch.randn(batch, 3, 32, 32), one_hot(batch)
    losses = model.loss(images.clone(), make_samples(LABELS[:batch]))
    assert list(losses) == ['loss_cls']
    losses['loss_cls'].backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}

    box = TransMix().draw_box((32, 32), step_streams(3, 7).local)
    mixed, _ = reference_mixing.trans_mix(images, targets, box, torch.ones(batch, 4, 4))
    features = model.adapter.read(mixed, class_attention=True)
    _, labels = reference_mixing.trans_mix(images, targets, box, features.class_attention)
    expected = reference.cross_entropy(classify(model, features.feats), labels, 0.1)
    torch.testing.assert_close(losses['loss_cls'], expected, rtol=1e-4, atol=1e-6)
    model.zero_grad()
    expected.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize('size', [(32, 48), (48, 32)])
def test_it_trains_on_images_that_are_not_square(make_classifier, make_samples, size):
    model = make_classifier('vit', img_size=size, augments=TRANSMIX).train()
    assert model.loss(torch.randn(3, 3, *size), make_samples(LABELS[:3]))['loss_cls'].isfinite()


def test_the_backbone_runs_once(make_classifier, make_samples):
    model = make_classifier('vit', augments=TRANSMIX).train()
    runs = []
    model.backbone.register_forward_hook(lambda *args: runs.append(1))
    model.loss(torch.randn(4, 3, 32, 32), make_samples(LABELS[:4]))
    assert len(runs) == 1
