import math
from collections import Counter

import numpy as np
import pytest
import reference_mixing as reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmpretrain.models.losses import CrossEntropyLoss, LabelSmoothLoss
from torch import nn

from smmix_mm import functional
from smmix_mm.mixing import TokenMix, step_streams
from smmix_mm.registry import BATCH_AUGMENTS
from smmix_mm.structures import Motivation, Question

CLASSES = 5
LABELS = [0, 3, 1, 4, 2]
SMALL = dict(patch_size=2, extra_tokens=3)
PUBLISHED_LOSS = dict(
    type='mmpretrain.LabelSmoothLoss',
    label_smooth_val=0.1,
    mode='original',
    use_sigmoid=True,
    num_classes=CLASSES,
    loss_weight=1 / CLASSES,
)

many = settings(max_examples=60, deadline=None, derandomize=True)


def answered(class_map):
    """What a teacher told, made by hand."""
    return (Motivation(grid=(1, 1), class_map=class_map),)


class Recorder:
    """A stream that remembers what it drew."""

    def __init__(self, seed):
        self.stream, self.drawn = np.random.default_rng(seed), []

    def __getattr__(self, name):
        def draw(*args):
            self.drawn.append(getattr(self.stream, name)(*args))
            return self.drawn[-1]

        return draw


def one_hot(labels):
    return torch.eye(CLASSES)[torch.as_tensor(labels)]


def with_loss(method, loss):
    """As the classifier prepares it."""
    model, model.head = nn.Module(), nn.Module()
    model.head.loss_module = loss
    method.prepare(model)
    return method


def tokens_of(mask):
    return {tuple(place) for place in np.argwhere(mask).tolist()}


def seen_by(mixed, images):
    """Mask of the pixels that came from the source, for images without equal pixels."""
    return (mixed.images != images).any(dim=1)


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
@pytest.mark.parametrize('mask', ['block', 'random'])
@pytest.mark.parametrize(('batch', 'size'), [(4, (8, 8)), (5, (8, 12)), (1, (12, 8)), (2, (6, 8))])
def test_a_step_equals_loops(mask, smoothing, batch, size):
    """Images pixel by pixel, and labels once the criterion has smoothed them; teachers of coarser and finer grids."""
    loss = LabelSmoothLoss(smoothing, num_classes=CLASSES, mode='original', use_sigmoid=True)
    method = with_loss(TokenMix(mask=mask, **SMALL), loss)
    grid = size[0] // 2, size[1] // 2
    for step, told in enumerate([grid, (2, 2), (3, 5), (7, 9), (1, 1)]):
        images, class_map = torch.randn(batch, 3, *size), torch.randn(batch, *told)
        mixed = method(images.clone(), one_hot(LABELS[:batch]), answered(class_map), step_streams(0, step))
        drawn = method.draw_mask(grid, step_streams(0, step).local)
        expected, labels = reference.token_mix(images, LABELS[:batch], drawn.tolist(), class_map, smoothing, CLASSES)
        assert torch.equal(mixed.images, expected)
        torch.testing.assert_close(loss.smooth_label(mixed.targets), labels)


def test_the_teacher_is_asked_once_for_class_maps_alone():
    assert TokenMix.questions == (Question(class_map=True, by='teacher', own_grid=True),)


def test_published_labels_by_hand():
    """Ten classes, smoothing 0.1: a source with 0.7 of its content inside, a target with 0.6 of its own outside.

    The two give 0.7 - 0.05 + 0.005 and 0.6 - 0.05 + 0.005 at their labels, each 0.005 everywhere else, and the
    criterion is the mean over batch and classes.
    """
    images = torch.randn(2, 3, 4, 4)
    method = TokenMix(mask='random', patch_size=2, share=0.5, extra_tokens=0)
    loss = LabelSmoothLoss(0.1, num_classes=10, mode='original', use_sigmoid=True, loss_weight=0.1)
    with_loss(method, loss)
    method.draw_mask = lambda grid, stream: np.array([[True, False], [True, False]])
    class_map = torch.tensor([[[0.1, 0.2], [0.3, 0.4]], [[5.0, 3.0], [2.0, -9.0]]])
    mixed = method(images, torch.eye(10)[[2, 7]], answered(class_map), step_streams(0, 0))

    first = torch.full((10,), 0.01)
    first[2], first[7] = 0.6 - 0.05 + 0.01, 0.7 - 0.05 + 0.01
    second = torch.full((10,), 0.01)
    second[7], second[2] = 0.3 - 0.05 + 0.01, 0.4 - 0.05 + 0.01
    torch.testing.assert_close(loss.smooth_label(mixed.targets), torch.stack([first, second]))

    logits = torch.randn(2, 10)
    expected = reference.binary_cross_entropy(logits, torch.stack([first, second]))
    torch.testing.assert_close(loss(logits, mixed.targets, avg_factor=2), expected)


def test_two_images_of_one_class_add_up():
    method = with_loss(TokenMix(**SMALL), LabelSmoothLoss(0.1, num_classes=CLASSES, mode='original'))
    images, class_map = torch.randn(2, 3, 8, 8), torch.rand(2, 4, 4)
    mixed = method(images, one_hot([3, 3]), answered(class_map), step_streams(0, 0))
    drawn = method.draw_mask((4, 4), step_streams(0, 0).local)
    _, labels = reference.token_mix(images, [3, 3], drawn.tolist(), class_map, 0.1, CLASSES)
    torch.testing.assert_close(mixed.targets * 0.9 + 0.1 / CLASSES, labels)
    assert (mixed.targets[:, [0, 1, 2, 4]] == 0).all()


@many
@given(st.integers(0, 10**6), st.integers(1, 5), st.sampled_from(['block', 'random']), st.booleans())
def test_laws_of_a_step(step, batch, mask, known):
    """Each pixel stays in place and comes from one of the two images; a teacher that knows nothing counts area."""
    images, class_map = torch.randn(batch, 2, 8, 8), torch.rand(batch, 4, 4) * known
    method = TokenMix(mask=mask, **SMALL)
    mixed = method(images, one_hot(LABELS[:batch]), answered(class_map), step_streams(0, step))
    drawn = torch.as_tensor(method.draw_mask((4, 4), step_streams(0, step).local))
    pasted = drawn.repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert torch.equal(mixed.images[..., pasted], images.flip(0)[..., pasted])
    assert torch.equal(mixed.images[..., ~pasted], images[..., ~pasted])
    assert (mixed.targets >= -1e-6).all()
    assert (mixed.targets <= 1 + 1e-6).all()
    # Over the batch every map counts once inside and once outside the one mask.
    torch.testing.assert_close(mixed.targets.sum(), torch.tensor(float(batch)))
    if not known:
        area = drawn.float().mean()
        expected = area * one_hot(LABELS[:batch]).flip(0) + (1 - area) * one_hot(LABELS[:batch])
        torch.testing.assert_close(mixed.targets, expected)


def test_maps_of_another_grid_are_resampled():
    """A map of 2 x 2 that is even has even shares on any mask; one of 8 x 8 is averaged."""
    images, targets = torch.randn(2, 3, 8, 8), one_hot([0, 1])
    method = TokenMix(**SMALL)
    coarse = method(images, targets, answered(torch.full((2, 2, 2), 3.0)), step_streams(0, 0))
    even = method(images, targets, answered(torch.ones(2, 4, 4)), step_streams(0, 0))
    torch.testing.assert_close(coarse.targets, even.targets)
    fine = method(images, targets, answered(torch.full((2, 8, 8), 0.1)), step_streams(0, 0))
    torch.testing.assert_close(fine.targets, even.targets)


def test_scores_are_clamped_where_the_teacher_gave_them():
    """By hand, and only then averaged over tokens of the mask; tokens here weigh three cells as 3 : 3 : 1."""
    method = TokenMix(mask='random', patch_size=2, share=0.5, extra_tokens=0)
    method.draw_mask = lambda grid, stream: np.array([[True, False]])
    # On the left the raw scores would sum to 0; clamped, there are 18 of 27 parts.
    class_map = torch.tensor([[[6.0, -6.0, 0.0, 3.0]], [[1.0, 1.0, 1.0, 1.0]]])
    mixed = method(torch.randn(2, 3, 2, 4), torch.eye(2), answered(class_map), step_streams(0, 0))
    torch.testing.assert_close(functional.content_map(class_map, (1, 2))[0], torch.tensor([[2 / 3, 1 / 3]]))
    torch.testing.assert_close(mixed.targets, torch.tensor([[1 / 3, 1 / 2], [2 / 3, 1 / 2]]))


@many
@given(st.integers(0, 10**6), st.integers(2, 14), st.integers(2, 14), st.floats(0.05, 1), st.data())
def test_block_masks_follow_the_published_rules(seed, rows, cols, min_aspect, data):
    """Replays the numbers that were drawn; the mask never has more than the tokens it grows towards."""
    wanted = data.draw(st.integers(1, rows * cols - 1))
    method = TokenMix(share=0, extra_tokens=wanted, min_aspect=min_aspect)
    stream = Recorder(seed)
    mask = method.draw_mask((rows, cols), stream)
    assert mask.dtype == bool
    assert tokens_of(mask) == reference.token_blocks((rows, cols), wanted, stream.drawn)
    assert mask.sum() <= wanted


@many
@given(st.integers(0, 10**6), st.integers(1, 14), st.integers(2, 14), st.data())
def test_random_masks_have_exactly_the_wanted_tokens(seed, rows, cols, data):
    wanted = data.draw(st.integers(1, rows * cols - 1))
    mask = TokenMix(mask='random', share=0, extra_tokens=wanted).draw_mask((rows, cols), np.random.default_rng(seed))
    assert mask.sum() == wanted


def test_masks_of_the_published_setting():
    """98 + 14 of 14 x 14 tokens: random masks have 112; block masks nearly always, and never more."""
    stream = np.random.default_rng(0)
    blocks = [TokenMix().draw_mask((14, 14), stream) for _ in range(400)]
    counts = Counter(int(mask.sum()) for mask in blocks)
    assert max(counts) == 112
    assert counts[112] > 0.9 * 400
    assert min(counts) > 90
    # Rectangles: most tokens of the mask have their right neighbour in it too, as against 112 / 196 by chance.
    neighbours = np.mean([(mask[:, :-1] & mask[:, 1:]).sum() / mask[:, :-1].sum() for mask in blocks])
    assert neighbours > 0.75

    randoms = np.stack([TokenMix(mask='random').draw_mask((14, 14), stream) for _ in range(400)])
    assert (randoms.sum((1, 2)) == 112).all()
    # Evenly: each token is in 400 * 112 / 196 of them, give or take five standard deviations of the binomial.
    share = 112 / 196
    assert abs(randoms.sum(0) - 400 * share).max() < 5 * math.sqrt(400 * share * (1 - share))


def test_blocks_have_the_published_sizes_and_shapes():
    """First blocks: areas up to what is wanted, rows over columns within the bounds, as far as whole tokens go."""
    method = TokenMix(share=0, extra_tokens=60)
    ratios, areas = [], []
    for seed in range(2000):
        mask = np.zeros((40, 40), dtype=bool)
        added = method._add_block(mask, 60, np.random.default_rng(seed))
        rows, cols = mask.any(1).sum(), mask.any(0).sum()
        assert rows * cols == added == mask.sum()
        areas.append(added)
        if added > 40:
            ratios.append(math.log(rows / cols))
    assert max(areas) <= 60
    assert np.mean(areas) == pytest.approx(30.5, abs=2)
    bound = -math.log(0.3)
    assert max(map(abs, ratios)) < bound + 0.3
    # Uniform between the bounds: mean 0 and a standard deviation of the range over the root of 12.
    assert np.mean(ratios) == pytest.approx(0, abs=0.1)
    assert np.std(ratios) == pytest.approx(2 * bound / math.sqrt(12), rel=0.1)


def test_the_streams_decide_and_the_local_one_alone():
    images, targets = torch.randn(4, 3, 16, 16), one_hot(LABELS[:4])
    answers, method = answered(torch.rand(4, 8, 8)), TokenMix(**SMALL)

    def run(step):
        return method(images, targets, answers, step_streams(0, step))

    first, again, later = run(0), run(0), run(1)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.targets, again.targets)
    assert not torch.equal(first.images, later.images)

    streams = step_streams(0, 0)
    before = streams.shared.bit_generator.state
    method(images, targets, answers, streams)
    assert streams.shared.bit_generator.state == before


@pytest.mark.parametrize('mask', ['block', 'random'])
def test_nothing_is_read_back_from_the_device(mask):
    """Tensors without values mix all the same."""
    images, targets = torch.empty(3, 3, 8, 8, device='meta'), torch.empty(3, CLASSES, device='meta')
    answers = answered(torch.empty(3, 2, 2, device='meta'))
    mixed = TokenMix(mask=mask, **SMALL)(images, targets, answers, step_streams(0, 0))
    assert (mixed.images.shape, mixed.targets.shape) == (images.shape, targets.shape)
    assert mixed.images.is_meta


def test_share_is_the_sources():
    assert TokenMix(share=0.25, extra_tokens=0).count((14, 14)) == 49
    assert TokenMix(share=0.5).count((14, 14)) == 112
    assert TokenMix(share=0.5, extra_tokens=0).count((3, 3)) == 4


@pytest.mark.parametrize(
    ('setting', 'message'),
    [
        (dict(mask='blocks'), "mask of TokenMix .* got 'blocks'"),
        (dict(patch_size=0), 'patch_size of TokenMix .* got 0'),
        (dict(patch_size=7.5), 'patch_size of TokenMix .* got 7.5'),
        (dict(share=1.0), 'share of TokenMix .* got 1.0'),
        (dict(share=-0.1), 'share of TokenMix .* got -0.1'),
        (dict(extra_tokens=-1), 'extra_tokens of TokenMix .* got -1'),
        (dict(extra_tokens=1.5), 'extra_tokens of TokenMix .* got 1.5'),
        (dict(min_aspect=0), 'min_aspect of TokenMix .* got 0'),
        (dict(min_aspect=1.5), 'min_aspect of TokenMix .* got 1.5'),
    ],
)
def test_bad_settings_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        TokenMix(**setting)


@pytest.mark.parametrize(
    ('size', 'settings', 'message'),
    [
        ((64, 40), dict(), r'patch_size of TokenMix has to divide .* got 16 for images of 64 x 40 pixels'),
        ((64, 64), dict(), r'share=0.5 and extra_tokens=14 of TokenMix .* ask for 22 of 16'),
        ((32, 32), dict(patch_size=8, extra_tokens=8), 'ask for 16 of 16'),
        ((32, 32), dict(share=0, extra_tokens=0, patch_size=4), 'ask for 0 of 64'),
        ((16, 128), dict(extra_tokens=1), "mask='block' of TokenMix needs at least 2 tokens .* have 1 x 8"),
    ],
)
def test_images_that_do_not_fit_are_refused(size, settings, message):
    with pytest.raises(ValueError, match=message):
        TokenMix(**settings)(torch.zeros(2, 3, *size), one_hot([0, 1]), answered(None), step_streams(0, 0))


def test_random_masks_serve_images_of_one_row():
    method = TokenMix(mask='random', extra_tokens=1)
    images = torch.randn(2, 3, 16, 128)
    mixed = method(images.clone(), one_hot([0, 1]), answered(torch.ones(2, 1, 8)), step_streams(0, 0))
    assert seen_by(mixed, images)[0].float().mean() == 5 / 8


@pytest.mark.parametrize('mode', ['classy_vision', 'multi_label'])
def test_criteria_that_smooth_otherwise_are_refused(mode):
    loss = LabelSmoothLoss(0.1, num_classes=CLASSES, mode=mode, use_sigmoid=True)
    with pytest.raises(ValueError, match=f"mode of LabelSmoothLoss has to be 'original' .* got '{mode}'"):
        with_loss(TokenMix(), loss)


@pytest.mark.parametrize('loss', [CrossEntropyLoss(use_sigmoid=True), LabelSmoothLoss(0.0, mode='classy_vision')])
def test_criteria_without_smoothing_get_the_shares(loss):
    assert with_loss(TokenMix(), loss).smoothing == 0


def test_a_config_builds_it():
    method = BATCH_AUGMENTS.build(dict(type='smmix_mm.TokenMix', mask='random'))
    assert isinstance(method, TokenMix)
    assert "mask='random'" in repr(method)


@pytest.mark.parametrize('teacher_family', ['vit', 'swin'])
@pytest.mark.parametrize(('family', 'batch'), [('vit', 5), ('pvt', 4), ('vit', 1)])
def test_a_training_step_equals_one_by_loops(make_classifier, make_samples, enter_run, family, batch, teacher_family):
    """The teacher's classifier at each of its tokens, the mask, the labels and the published criterion."""
    enter_run(seed=3, iteration=7)
    teacher = make_classifier(teacher_family, type='mmpretrain.ImageClassifier')
    head = dict(
        type='mmpretrain.VisionTransformerClsHead' if family == 'vit' else 'mmpretrain.LinearClsHead',
        num_classes=CLASSES,
        in_channels=32,
        loss=PUBLISHED_LOSS,
    )
    augment = dict(type='smmix_mm.TokenMix', patch_size=8, extra_tokens=2)
    model = make_classifier(family, augments=augment, head=head, teacher=teacher).train()
    images = torch.randn(batch, 3, 32, 32)
    losses = model.loss(images.clone(), make_samples(LABELS[:batch]))
    assert list(losses) == ['loss_cls']
    losses['loss_cls'].backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}

    drawn = TokenMix(patch_size=8, extra_tokens=2).draw_mask((4, 4), step_streams(3, 7).local)
    class_map = class_map_by_hand(teacher, images, LABELS[:batch])
    mixed, labels = reference.token_mix(images, LABELS[:batch], drawn.tolist(), class_map, 0.1, CLASSES)
    expected = reference.binary_cross_entropy(model.head(model.backbone(mixed)), labels)
    torch.testing.assert_close(losses['loss_cls'], expected, rtol=1e-4, atol=1e-6)
    model.zero_grad()
    expected.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-3, atol=1e-5, msg=name)


def class_map_by_hand(teacher, images, labels):
    """Logit of each image's class at each of the 4 x 4 tokens behind the final norm, by the head's linear layer."""
    teacher.eval()
    vit = hasattr(teacher.backbone, 'ln1')
    tokens = []
    norm = teacher.backbone.ln1 if vit else teacher.backbone.norm1
    handle = norm.register_forward_hook(lambda module, args, output: tokens.append(output))
    with torch.no_grad():
        teacher.backbone(images)
    handle.remove()
    tokens = tokens[-1][:, 1:] if vit else tokens[-1]
    linear = teacher.head.layers.head if vit else teacher.head.fc
    scores = [row @ linear.weight[label] + linear.bias[label] for row, label in zip(tokens, labels, strict=True)]
    return torch.stack(scores).detach().reshape(len(images), 4, 4)


def test_without_a_teacher_the_classifier_refuses(make_classifier):
    with pytest.raises(ValueError, match='TokenMix needs a teacher for class_map'):
        make_classifier('vit', augments=dict(type='smmix_mm.TokenMix'))


def test_the_criterion_is_checked_when_the_classifier_is_built(make_classifier):
    head = dict(
        type='mmpretrain.VisionTransformerClsHead',
        num_classes=CLASSES,
        in_channels=32,
        loss=dict(type='mmpretrain.LabelSmoothLoss', label_smooth_val=0.1, mode='classy_vision', num_classes=CLASSES),
    )
    teacher = make_classifier('vit', type='mmpretrain.ImageClassifier')
    with pytest.raises(ValueError, match="has to be 'original' for the labels of TokenMix"):
        make_classifier('vit', augments=dict(type='smmix_mm.TokenMix'), head=head, teacher=teacher)
