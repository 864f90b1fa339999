import numpy as np
import pytest
import reference
import reference_mixing
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smmix_mm.mixing import AttentiveMix, step_streams
from smmix_mm.registry import BATCH_AUGMENTS
from smmix_mm.streams import random_pairs
from smmix_mm.structures import Motivation, Question

CLASSES = 5
LABELS = [0, 3, 1, 4, 2]

many = settings(max_examples=50, deadline=None, derandomize=True)


def answered(scores):
    """What a teacher told, made by hand."""
    return (Motivation(grid=tuple(scores.shape[1:]), attention=scores, activation=scores),)


def one_hot(batch):
    return torch.eye(CLASSES)[LABELS[:batch]]


def drawn_in(method, step, batch, grid=(4, 4)):
    """The count and the pairs of a step: the count is drawn first."""
    stream = step_streams(0, step).local
    return method.draw_count(grid, stream), random_pairs(stream, batch, torch.device('cpu')).tolist()


@pytest.mark.parametrize('by', ['attention', 'activation'])
@pytest.mark.parametrize(
    ('batch', 'size', 'side', 'cells'),
    [
        (4, (8, 8), 2, None),
        (5, (8, 8), 4, 3),
        (1, (8, 8), 2, None),
        (3, (6, 12), 3, 6),
        (5, (12, 6), 2, None),
        (2, (2, 4), 2, None),
    ],
)
def test_a_step_equals_loops(by, batch, size, side, cells):
    """Few levels of scores, so that cells tie."""
    method = AttentiveMix(cells=cells, cell_size=side, by=by)
    grid = size[0] // side, size[1] // side
    assert method.grid(size) == grid
    images, targets = torch.randn(batch, 3, *size), one_hot(batch)
    for step in range(10):
        scores = torch.randint(0, 4, (batch, *grid)).float()
        mixed = method(images.clone(), targets, answered(scores), step_streams(0, step))
        count, pairs = drawn_in(method, step, batch, grid)
        expected, labels = reference_mixing.attentive_mix(images, targets, pairs, scores, count, side)
        assert torch.equal(mixed.images, expected)
        torch.testing.assert_close(mixed.targets, labels)


@many
@given(st.integers(0, 10**6), st.integers(1, 5), st.one_of(st.none(), st.integers(1, 15)))
def test_laws_of_a_step(step, batch, cells):
    """Each pixel stays in place and comes from one of the two images; both are there; labels count the cells."""
    method = AttentiveMix(cells=cells, cell_size=2)
    images, targets = torch.randn(batch, 2, 8, 8), one_hot(batch)
    mixed = method(images, targets, answered(torch.rand(batch, 4, 4)), step_streams(0, step))
    count, pairs = drawn_in(method, step, batch)
    sources = images[pairs]
    from_target = (mixed.images == images).all(1)
    from_source = (mixed.images == sources).all(1)
    assert (from_target | from_source).all()
    torch.testing.assert_close(mixed.targets.sum(1), torch.ones(batch))
    for target, source in enumerate(pairs):
        if source == target:
            torch.testing.assert_close(mixed.targets[target], targets[target])
            continue
        assert from_source[target].sum() == 4 * count
        torch.testing.assert_close(mixed.targets[target, LABELS[source]], torch.tensor(count / 16))
        torch.testing.assert_close(mixed.targets[target, LABELS[target]], torch.tensor(1 - count / 16))


def test_the_brightest_cells_are_pasted_where_they_were():
    """Two images whose answer can be seen."""
    images = torch.stack([torch.full((1, 4, 4), 1.0), torch.full((1, 4, 4), 2.0)])
    scores = torch.tensor([[[0.9, 0.1], [0.2, 0.3]], [[0.1, 0.2], [0.3, 0.9]]])
    method = AttentiveMix(cells=1, cell_size=2)
    step = next(step for step in range(100) if drawn_in(method, step, 2, (2, 2))[1] == [1, 0])
    mixed = method(images, torch.eye(2), answered(scores), step_streams(0, step))
    assert mixed.images[0, 0].tolist() == [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 2, 2], [1, 1, 2, 2]]
    assert mixed.images[1, 0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [2, 2, 2, 2], [2, 2, 2, 2]]
    torch.testing.assert_close(mixed.targets, torch.tensor([[0.75, 0.25], [0.25, 0.75]]))


@pytest.mark.parametrize('by', ['attention', 'activation'])
def test_the_teacher_is_asked_for_one_thing(by):
    assert AttentiveMix(by=by).questions == (Question(**{by: True}, by='teacher', own_grid=True),)


@pytest.mark.parametrize('grid', [(2, 2), (8, 8), (3, 5)])
def test_scores_of_another_grid_are_resampled(grid):
    method = AttentiveMix(cells=4, cell_size=2)
    images, scores = torch.randn(3, 3, 8, 8), torch.rand(3, *grid)
    mixed = method(images.clone(), one_hot(3), answered(scores), step_streams(0, 0))
    expected, _ = reference_mixing.attentive_mix(images, one_hot(3), drawn_in(method, 0, 3)[1], scores, 4, 2)
    assert torch.equal(mixed.images, expected)


def test_the_share_is_drawn_from_beta():
    """Half of 7 x 7 cells on the average, rounded down, with the variance 1 / 20 of Beta(2, 2); never all or none."""
    stream, method = np.random.default_rng(0), AttentiveMix()
    published = method.grid((224, 224))
    assert published == (7, 7)
    counts = np.array([method.draw_count(published, stream) for _ in range(5000)])
    assert (counts + 0.5).mean() / 49 == pytest.approx(0.5, abs=0.01)
    assert (counts / 49).var() == pytest.approx(1 / 20, rel=0.05)

    for alpha in (0.01, 0.2):
        counts = [AttentiveMix(alpha=alpha).draw_count((3, 3), stream) for _ in range(500)]
        assert min(counts) == 1
        assert max(counts) == 8
    assert {AttentiveMix(alpha=1e9).draw_count((3, 5), stream) for _ in range(50)} == {7}
    assert {method.draw_count((1, 2), stream) for _ in range(50)} == {1}
    assert {AttentiveMix(cells=6).draw_count(published, stream) for _ in range(50)} == {6}


def test_the_streams_decide_and_the_local_one_alone():
    images, answers = torch.randn(5, 3, 8, 8), answered(torch.rand(5, 4, 4))
    method = AttentiveMix(cell_size=2)

    def run(step):
        return method(images, one_hot(5), answers, step_streams(0, step))

    first, again, later = run(0), run(0), run(1)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.targets, again.targets)
    assert not torch.equal(first.images, later.images)

    streams = step_streams(0, 0)
    before = streams.shared.bit_generator.state
    method(images, one_hot(5), answers, streams)
    assert streams.shared.bit_generator.state == before


def test_nothing_is_read_back_from_the_device():
    """Tensors without values mix all the same."""
    images, targets = torch.empty(3, 3, 8, 8, device='meta'), torch.empty(3, CLASSES, device='meta')
    answers = answered(torch.empty(3, 2, 2, device='meta'))
    mixed = AttentiveMix(cell_size=2)(images, targets, answers, step_streams(0, 0))
    assert (mixed.images.shape, mixed.targets.shape) == (images.shape, targets.shape)
    assert mixed.images.is_meta


@pytest.mark.parametrize(
    ('setting', 'message'),
    [
        (dict(cells=0), 'cells of AttentiveMix .* whole number of at least 1, but got 0'),
        (dict(cells=-3), 'cells of AttentiveMix .* got -3'),
        (dict(cells=2.5), 'cells of AttentiveMix .* got 2.5'),
        (dict(cells='6'), "cells of AttentiveMix .* got '6'"),
        (dict(alpha=0), 'alpha of AttentiveMix .* got 0'),
        (dict(alpha=None), 'alpha of AttentiveMix .* got None'),
        (dict(cell_size=0), 'cell_size of AttentiveMix .* whole number of at least 1, but got 0'),
        (dict(cell_size=3.5), 'cell_size of AttentiveMix .* got 3.5'),
        (dict(cell_size=(8, 8)), r'cell_size of AttentiveMix .* got \(8, 8\)'),
        (dict(by='logits'), "by of AttentiveMix .* got 'logits'"),
    ],
)
def test_bad_settings_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        AttentiveMix(**setting)


@pytest.mark.parametrize(
    ('size', 'setting', 'message'),
    [
        ((32, 56), dict(), 'cell_size of AttentiveMix has to divide .* got 32 for images of 32 x 56 pixels'),
        ((56, 32), dict(), 'cell_size of AttentiveMix has to divide .* got 32 for images of 56 x 32 pixels'),
        ((224, 224), dict(cells=49), 'cells=49 of AttentiveMix .* images of 224 x 224 pixels have 49 at cell_size=32'),
        ((64, 64), dict(cells=6), 'cells=6 of AttentiveMix needs more than 6 cells .* have 4 at cell_size=32'),
        ((32, 32), dict(), 'cells=None of AttentiveMix needs more than 1 cells .* have 1 at cell_size=32'),
    ],
)
def test_images_that_do_not_fit_are_refused(size, setting, message):
    with pytest.raises(ValueError, match=message):
        AttentiveMix(**setting)(torch.zeros(2, 3, *size), one_hot(2), None, step_streams(0, 0))


def test_all_cells_but_one_are_the_most():
    method, scores = AttentiveMix(cells=3, cell_size=4), torch.rand(2, 2, 2)
    images = torch.randn(2, 3, 8, 8)
    mixed = method(images.clone(), one_hot(2), answered(scores), step_streams(0, 0))
    pairs = drawn_in(method, 0, 2, (2, 2))[1]
    expected, labels = reference_mixing.attentive_mix(images, one_hot(2), pairs, scores, 3, 4)
    assert torch.equal(mixed.images, expected)
    torch.testing.assert_close(mixed.targets, labels)


def test_a_config_builds_it():
    method = BATCH_AUGMENTS.build(dict(type='smmix_mm.AttentiveMix', cells=6, by='activation'))
    assert isinstance(method, AttentiveMix)
    assert 'cells=6, alpha=2.0, cell_size=32' in repr(method)


@pytest.mark.parametrize('by', ['attention', 'activation'])
@pytest.mark.parametrize(('family', 'batch'), [('vit', 5), ('pvt', 4), ('vit', 1)])
def test_a_training_step_equals_one_by_loops(make_classifier, make_samples, enter_run, family, batch, by):
    enter_run(seed=3, iteration=7)
    teacher = make_classifier('vit', type='mmpretrain.ImageClassifier')
    augment = dict(type='smmix_mm.AttentiveMix', cell_size=8, by=by)
    model = make_classifier(family, augments=augment, teacher=teacher).train()
    images, targets = torch.randn(batch, 3, 32, 32), one_hot(batch)
    losses = model.loss(images.clone(), make_samples(LABELS[:batch]))
    assert list(losses) == ['loss_cls']
    losses['loss_cls'].backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}

    stream = step_streams(3, 7).local
    count = AttentiveMix(cell_size=8).draw_count((4, 4), stream)
    pairs = random_pairs(stream, batch, torch.device('cpu')).tolist()
    scores = scores_by_hand(teacher, images, by)
    mixed, labels = reference_mixing.attentive_mix(images, targets, pairs, scores, count, 8)
    expected = reference.cross_entropy(model.head(model.backbone(mixed)), labels, 0.1)
    torch.testing.assert_close(losses['loss_cls'], expected, rtol=1e-4, atol=1e-6)
    model.zero_grad()
    expected.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize('by', ['attention', 'activation'])
def test_the_strongest_cells_are_the_teachers_own(make_classifier, make_samples, enter_run, by):
    """Teacher and cells have a grid of 8 x 8, which the 4 x 4 of the student would blur."""
    enter_run(seed=0, iteration=0)
    teacher = make_classifier('vit', type='mmpretrain.ImageClassifier', backbone=dict(patch_size=4))
    augment = dict(type='smmix_mm.AttentiveMix', cells=5, cell_size=4, by=by)
    model, seen = make_classifier('pvt', augments=augment, teacher=teacher).train(), []
    model.backbone.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    images = torch.randn(4, 3, 32, 32)
    model.loss(images.clone(), make_samples(LABELS[:4]))

    pairs = random_pairs(step_streams(0, 0).local, 4, torch.device('cpu')).tolist()
    assert pairs != [0, 1, 2, 3]
    scores = scores_by_hand(teacher, images, by, grid=(8, 8))
    expected, _ = reference_mixing.attentive_mix(images, one_hot(4), pairs, scores, 5, 4)
    blurred = torch.tensor([reference_mixing.resample(image, (4, 4)) for image in scores.tolist()])
    assert not torch.equal(reference_mixing.attentive_mix(images, one_hot(4), pairs, blurred, 5, 4)[0], expected)
    (mixed,) = seen
    assert torch.equal(mixed, expected)


def scores_by_hand(teacher, images, by, grid=(4, 4)):
    """Of a ViT's tokens: the attention of its last block, or the channel mean behind its final norm."""
    backbone, seen = teacher.eval().backbone, {}
    last = backbone.layers[-1].attn
    handles = [
        last.register_forward_hook(lambda module, args, output: seen.update(inputs=args[0])),
        backbone.ln1.register_forward_hook(lambda module, args, output: seen.update(tokens=output)),
    ]
    with torch.no_grad():
        backbone(images)
    for handle in handles:
        handle.remove()
    if by == 'activation':
        return seen['tokens'][:, 1:].mean(2).reshape(-1, *grid)
    scores = reference.block_attention(
        seen['inputs'], last.qkv.weight, last.qkv.bias, last.num_heads, num_extra_tokens=1
    )
    return scores.reshape(-1, *grid)


def test_without_a_teacher_the_classifier_refuses(make_classifier):
    with pytest.raises(ValueError, match='AttentiveMix needs a teacher for attention'):
        make_classifier('vit', augments=dict(type='smmix_mm.AttentiveMix'))


def test_a_teacher_of_other_classes_will_do(make_classifier, make_samples):
    head = dict(type='mmpretrain.VisionTransformerClsHead', num_classes=11, in_channels=32)
    teacher = make_classifier('vit', type='mmpretrain.ImageClassifier', head=head)
    augment = dict(type='smmix_mm.AttentiveMix', cell_size=8)
    model = make_classifier('pvt', augments=augment, teacher=teacher).train()
    assert model.loss(torch.randn(3, 3, 32, 32), make_samples(LABELS[:3]))['loss_cls'].isfinite()
