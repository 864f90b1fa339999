import copy
import itertools
from importlib import util

import gco
import numpy as np
import pytest
import reference_mixing as reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from marks import needs_cpu_float16

from smmix_mm import functional
from smmix_mm.mixing import PuzzleMix, Streams, step_streams
from smmix_mm.mixing.puzzle_mix import classification_loss, cut_graphs
from smmix_mm.registry import BATCH_AUGMENTS
from smmix_mm.structures import Motivation, Question

PUZZLEMIX = dict(type='smmix_mm.PuzzleMix')

few = settings(max_examples=25, deadline=None, derandomize=True)


class LinearModel:
    """A linear classifier of pixels, whose gradient is known; answers PuzzleMix's question."""

    def __init__(self, pixels, classes=4, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.weight = torch.randn(pixels, classes, generator=generator)

    def answer(self, images, targets):
        return told_by(lambda pixels: pixels.flatten(1) @ self.weight, images, targets)

    def gradients(self, images, targets):
        probs = (images.flatten(1) @ self.weight).softmax(dim=1)
        return ((probs - targets) @ self.weight.T).view(images.shape)


@torch.enable_grad()
def told_by(classify, images, targets):
    """The answer of a classifier that gives logits of images."""
    (question,) = PuzzleMix.questions
    images = images.detach().requires_grad_()
    loss = question.input_gradient(classify(images), targets)
    return (Motivation(grid=(1, 1), input_gradient=torch.autograd.grad(loss, images)[0]),)


def one_hot(batch, classes=4):
    return torch.eye(classes)[torch.arange(batch) % classes]


def draws(step, batch, alpha=1.0, powers=(1, 3), seed=0, rank=0):
    stream = step_streams(seed, step, rank=rank).local
    return stream.permutation(batch).tolist(), stream.beta(alpha, alpha), 2 ** stream.integers(powers[0], powers[1] + 1)


def random_energy(seed, blocks, num_labels=3, batch=1, share=0.5):
    """Of random saliencies and colours that are far from even."""
    generator = torch.Generator().manual_seed(seed)
    saliency = torch.rand(batch + 1, blocks, blocks, generator=generator, dtype=torch.float64) ** 3
    saliency = saliency / saliency.sum(dim=(1, 2), keepdim=True)
    images = torch.rand(batch + 1, 3, 2 * blocks, 4 * blocks, generator=generator, dtype=torch.float64) ** 2
    colours = functional.block_colours(images, blocks)
    pairs = torch.arange(batch + 1).roll(1)
    energy = functional.puzzle_energy(saliency, colours, pairs, share, num_labels)
    return [part[:batch].numpy() for part in energy]


def energies(energy, labels):
    """Of many labellings ``(K, n, n)`` of the first image."""
    costs, down, right = (part[0] for part in energy)
    rows, cols = np.indices(labels.shape[1:])
    shares = labels / (costs.shape[-1] - 1)
    return (
        costs[rows, cols, labels].sum((1, 2))
        + (down * np.diff(shares, axis=1) ** 2).sum((1, 2))
        + (right * np.diff(shares, axis=2) ** 2).sum((1, 2))
    )


def all_labellings(blocks, num_labels):
    return np.array(list(itertools.product(range(num_labels), repeat=blocks**2))).reshape(-1, blocks, blocks)


@few
@given(st.integers(0, 2**32 - 1), st.floats(0.02, 0.98), st.sampled_from([2, 3, 4]))
def test_cuts_of_four_blocks_are_the_best_of_all_labellings(seed, share, num_labels):
    energy = random_energy(seed, 2, num_labels, share=share)
    values = energies(energy, all_labellings(2, num_labels))
    found = energies(energy, cut_graphs(*energy))[0]
    assert found - values.min() <= 1e-5 * (values.max() - values.min())


def test_cuts_of_nine_blocks_are_among_the_best():
    """Swap moves may stop short of the best of the 19683 labellings, but only just."""
    every, better = all_labellings(3, 3), []
    for seed in range(40):
        energy = random_energy(seed, 3, share=0.3)
        found = energies(energy, cut_graphs(*energy))[0]
        better.append((energies(energy, every) < found - 1e-5).sum())
    assert max(better) <= 3
    assert np.mean(np.array(better) == 0) > 0.8


@pytest.mark.parametrize('blocks', [2, 4, 8])
def test_the_energy_that_the_cuts_report_is_that_of_their_labels(blocks):
    """In their whole numbers, which are ours to a millionth of the largest cost."""
    energy = random_energy(1, blocks)
    labels = cut_graphs(*energy)
    costs, down, right = (part[0] for part in energy)
    scale = 1e6 / max(costs.max(), down.max(), right.max())
    graph = gco.GCO()
    graph.create_general_graph(blocks**2, 3)
    graph.set_data_cost(np.rint(costs * scale).astype(np.int32).reshape(-1, 3))
    sites = np.arange(blocks**2).reshape(blocks, blocks)
    first = np.concatenate([sites[:-1].ravel(), sites[:, :-1].ravel()])
    second = np.concatenate([sites[1:].ravel(), sites[:, 1:].ravel()])
    weights = np.concatenate([down.ravel(), right.ravel()])
    graph.set_all_neighbors(first, second, np.rint(weights * scale / 4).astype(np.int32))
    graph.set_smooth_cost(np.array([[0, 1, 4], [1, 0, 1], [4, 1, 0]], dtype=np.int32))
    reported = graph.swap() / scale
    assert (graph.get_labels().reshape(blocks, blocks) == labels[0]).all()
    graph.destroy_graph()
    assert reported == pytest.approx(energies(energy, labels)[0], abs=1e-5 * blocks**2 * costs.max())


@pytest.mark.parametrize(('batch', 'size'), [(1, (16, 16)), (2, (16, 24)), (5, (8, 16))])
@pytest.mark.parametrize('transport', [False, True])
def test_forward_equals_loops(batch, size, transport):
    """Draws, gradients, energy, masks, moved blocks and labels, each from its definition."""
    images, targets = torch.rand(batch, 3, *size), one_hot(batch)
    before, model = images.clone(), LinearModel(3 * size[0] * size[1])
    method = PuzzleMix(transport=transport, block_powers=(1, 2))
    for step in range(4):
        mixed = method(images, targets, model.answer(images, targets), step_streams(0, step))
        pairs, share, blocks = draws(step, batch, powers=(1, 2))
        gradients = model.gradients(images, targets)
        saliency = [torch.tensor(reference.block_saliency(gradient, blocks)) for gradient in gradients]
        energy = functional.puzzle_energy(
            torch.stack(saliency), functional.block_colours(images, blocks), torch.tensor(pairs), share
        )
        masks = cut_graphs(*(part.numpy() for part in energy)) / 2
        for b, source in enumerate(pairs):
            first, second, mask = images[b], images[source], masks[b]
            if transport and blocks == 2:
                shown = reference.best_order(saliency[b].tolist(), mask < 1, 0.8)
                first = reference.arrange_blocks(first, shown, blocks)
                shown = reference.best_order(saliency[source].tolist(), mask > 0, 0.8)
                second = reference.arrange_blocks(second, shown, blocks)
            if not transport or blocks == 2:
                part = torch.tensor(np.kron(mask, np.ones((size[0] // blocks, size[1] // blocks))))
                torch.testing.assert_close(mixed.images[b].double(), part * second + (1 - part) * first)
        torch.testing.assert_close(
            mixed.targets, reference.soft_labels(targets, pairs, [float(mask.mean()) for mask in masks])
        )
        torch.testing.assert_close(mixed.targets.sum(dim=1), torch.ones(batch))
    assert torch.equal(images, before)


@few
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.sampled_from([2, 3, 5]), st.booleans())
def test_blocks_are_mixed_in_the_shares_of_the_labels(seed, batch, num_labels, transport):
    """Whatever is moved: images of one colour show the mask, whose values are the labels' and whose mean is theirs."""
    colours = torch.arange(batch).float() + 1
    images = colours.view(-1, 1, 1, 1).expand(batch, 3, 16, 8).clone()
    model = LinearModel(3 * 16 * 8, classes=batch, seed=seed % 1000)
    method = PuzzleMix(num_labels=num_labels, transport=transport)
    mixed = method(images, torch.eye(batch), model.answer(images, torch.eye(batch)), step_streams(seed, 0))
    pairs = draws(0, batch, seed=seed)[0]
    for b, source in enumerate(pairs):
        if source == b:
            torch.testing.assert_close(mixed.images[b], images[b])
            continue
        mask = (mixed.images[b] - colours[b]) / (colours[source] - colours[b])
        levels = mask * (num_labels - 1)
        torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)
        assert mask.min() >= -1e-5
        assert mask.max() <= 1 + 1e-5
        assert mixed.targets[b, source].item() == pytest.approx(mask.mean().item(), abs=1e-5)
    torch.testing.assert_close(mixed.targets.sum(dim=1), torch.ones(batch))


class FixedShare:
    """A stream whose Beta distribution has one value."""

    def __init__(self, share, rng):
        self.share, self.rng = share, rng

    def beta(self, *_):
        return self.share

    def __getattr__(self, name):
        return getattr(self.rng, name)


@pytest.mark.parametrize('share', [0.0, 1e-9, 1 - 1e-9, 1.0])
@pytest.mark.parametrize('transport', [False, True])
def test_a_share_of_nothing_or_everything(share, transport):
    """A prior that outweighs everything else gives the whole area to one image, and leaves its blocks in place."""
    images, targets = torch.rand(4, 3, 8, 8), one_hot(4)
    streams = step_streams(0, 0)
    streams = Streams(shared=streams.shared, local=FixedShare(share, streams.local))
    answers = LinearModel(192).answer(images, targets)
    mixed = PuzzleMix(eta=1000.0, transport=transport)(images, targets, answers, streams)
    pairs = draws(0, 4)[0]
    assert torch.equal(mixed.images, images[pairs] if share > 0.5 else images)
    assert torch.equal(mixed.targets, targets[pairs] if share > 0.5 else targets)


def test_what_is_salient_is_kept():
    """Two images whose saliency is all in one half each: the mask takes either half from where it matters."""
    images = torch.rand(2, 3, 16, 16)
    weight = torch.zeros(2, 3, 16, 16)
    weight[0, :, :, :8] = 1
    weight[1, :, :, 8:] = 1

    def classify(images):
        # Each class looks at one half.
        return (images.unsqueeze(1) * weight).sum(dim=(2, 3, 4)) * one_hot(2, 2) * 0.01

    answers = told_by(classify, images, torch.eye(2))
    method = PuzzleMix(beta=0.0, eta=0.0)
    for step in range(12):
        mixed = method(images, torch.eye(2), answers, step_streams(0, step))
        if draws(step, 2)[0] == [0, 1]:
            continue
        assert torch.equal(mixed.images[0, :, :, :8], images[0, :, :, :8])
        assert torch.equal(mixed.images[0, :, :, 8:], images[1, :, :, 8:])
        torch.testing.assert_close(mixed.targets, torch.full((2, 2), 0.5))


def test_transport_shows_more_of_what_is_salient():
    """Never less than without; and a distance that costs too much moves nothing."""
    torch.manual_seed(1)
    saliency = torch.rand(6, 4, 4) ** 4
    saliency = saliency / saliency.sum(dim=(1, 2), keepdim=True)
    visible = np.random.default_rng(0).random((6, 4, 4)) < 0.5
    blocks = torch.arange(16.0).view(1, 1, 4, 4).expand(6, 1, 4, 4)
    for weight, moves in ((0.0, True), (0.05, True), (100.0, False)):
        moved = PuzzleMix(transport=True, transport_weight=weight)._transport(blocks, saliency, visible).long()
        assert torch.equal(moved.flatten(1).sort(dim=1).values, blocks.flatten(1).long())
        shown = torch.gather(saliency.flatten(1), 1, moved.flatten(1)).view(6, 4, 4)[torch.as_tensor(visible)].sum()
        before = saliency[torch.as_tensor(visible)].sum()
        assert torch.equal(moved, blocks.long()) is not moves
        assert (shown > before) if moves else (shown == before)


def test_the_model_under_training_is_asked_for_the_gradient_alone():
    (question,) = PuzzleMix.questions
    assert question == Question(input_gradient=classification_loss, by='model', own_grid=True)


@pytest.mark.parametrize('scale', [1.0, 1e-6])
def test_gradients_are_those_of_the_loss(scale):
    """Times a constant."""
    model, images, targets = LinearModel(3 * 64), torch.rand(3, 3, 8, 8), one_hot(3)
    model.weight = model.weight * scale
    (answer,) = model.answer(images, targets)
    torch.testing.assert_close(answer.input_gradient / 1024, model.gradients(images, targets))


@needs_cpu_float16
@pytest.mark.parametrize('scale', [1.0, 1e-6])
def test_gradients_in_half_precision_are_those_in_single(scale):
    """The constant keeps small ones from becoming zero."""
    model, images, targets = LinearModel(3 * 64), torch.rand(3, 3, 8, 8), one_hot(3)
    weight = model.weight = model.weight * scale
    found = model.answer(images, targets)[0].input_gradient
    (halves,) = told_by(lambda pixels: pixels.half().flatten(1) @ weight.half(), images, targets)
    if scale < 1:
        # Numbers down to 6e-8 have one digit left.
        assert (halves.input_gradient != 0).float().mean() > 0.9
    else:
        torch.testing.assert_close(halves.input_gradient, found, rtol=0.1, atol=0.05 * found.abs().max().item())


def test_colours_are_brought_to_the_unit_range(make_classifier):
    """By the data preprocessor's deviation: its mean drops out of all differences."""
    normalise = dict(mean=[100.0, 110, 120], std=[51.0, 85, 255])
    model = make_classifier(augments=[PUZZLEMIX], data_preprocessor=normalise)
    torch.testing.assert_close(model.mixing.methods[0].colour_scale.flatten(), torch.tensor([0.2, 1 / 3, 1]))
    raw = make_classifier(augments=[PUZZLEMIX])
    torch.testing.assert_close(raw.mixing.methods[0].colour_scale, torch.full((1, 1, 1), 1 / 255))
    assert not any('colour_scale' in name for name in model.state_dict())


@pytest.mark.parametrize('size', [(12, 16), (16, 20)])
def test_images_that_blocks_do_not_divide_are_an_error(size):
    with pytest.raises(ValueError, match=rf'block_powers=\(1, 3\) of PuzzleMix.*8 .*{size[0]} x {size[1]}'):
        images = torch.rand(2, 3, *size)
        answers = (Motivation(grid=(1, 1), input_gradient=images),)
        PuzzleMix()(images, one_hot(2), answers, step_streams(0, 0))


def test_block_numbers_are_drawn_from_their_range(monkeypatch):
    images, targets, model = torch.rand(2, 3, 16, 16), one_hot(2), LinearModel(3 * 256)
    original, found = functional.block_colours, []
    monkeypatch.setattr(functional, 'block_colours', lambda x, blocks: found.append(blocks) or original(x, blocks))
    for powers, expected in ((1, {2}), ((2, 2), {4}), ((1, 3), {2, 4, 8})):
        found.clear()
        for step in range(12):
            PuzzleMix(block_powers=powers)(images, targets, model.answer(images, targets), step_streams(0, step))
        assert set(found) == expected


@pytest.mark.parametrize('transport', [False, True])
def test_batches_keep_their_memory_format(transport):
    images, targets, model = torch.rand(4, 3, 16, 24), one_hot(4), LinearModel(3 * 16 * 24)
    method = PuzzleMix(transport=transport)
    for step in range(4):
        expected = method(images, targets, model.answer(images, targets), step_streams(0, step))
        last = images.to(memory_format=torch.channels_last)
        mixed = method(last, targets, model.answer(last, targets), step_streams(0, step))
        assert expected.images.is_contiguous()
        assert mixed.images.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(mixed.images, expected.images)
        assert torch.equal(mixed.targets, expected.targets)
        assert torch.equal(last, images)


def test_the_same_streams_give_the_same_batch():
    images, targets, model = torch.rand(4, 3, 16, 16), one_hot(4), LinearModel(3 * 256)
    method = PuzzleMix(transport=True)
    first, again = (method(images, targets, model.answer(images, targets), step_streams(1, 2)) for _ in range(2))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.targets, again.targets)
    other = method(images, targets, model.answer(images, targets), step_streams(1, 2, rank=1))
    assert not torch.equal(first.images, other.images)


@pytest.mark.parametrize(
    'setting',
    [
        dict(alpha=0),
        dict(alpha='2'),
        dict(alpha=float('nan')),
        dict(num_labels=1),
        dict(num_labels=2.5),
        dict(block_powers=0),
        dict(block_powers=(3, 1)),
        dict(block_powers=(1, 2, 3)),
        dict(block_powers='13'),
        dict(block_powers=1.5),
        dict(beta=-1),
        dict(gamma=1.5),
        dict(gamma=-0.1),
        dict(eta=float('inf')),
        dict(transport_weight=None),
    ],
)
def test_settings_outside_their_range_are_an_error(setting):
    ((name, _),) = setting.items()
    with pytest.raises(ValueError, match=f'{name} of PuzzleMix'):
        PuzzleMix(**setting)


def test_graph_cuts_that_are_not_installed_are_named_when_built(monkeypatch):
    found = util.find_spec
    monkeypatch.setattr('smmix_mm.mixing.puzzle_mix.find_spec', lambda name: None if name == 'gco' else found(name))
    with pytest.raises(ImportError, match='PuzzleMix needs the package gco-wrapper'):
        PuzzleMix()


def test_defaults_are_the_published_settings():
    method = BATCH_AUGMENTS.build(PUZZLEMIX)
    assert (method.alpha, method.transport, method.transport_weight) == (1, True, 0.8)
    assert (method.block_powers, method.num_labels) == ((1, 3), 3)
    assert method.weights == dict(beta=1.2, gamma=0.5, eta=0.2)
    assert not list(method.parameters())
    assert not method.state_dict()


def by_hand(model, images, targets, step):
    """Gradients of a step from the mixed batch alone, by a copy of the model that never saw the saliency pass."""
    method = model.mixing.methods[0]
    mixed = method(images, targets, model.answer(method.questions, images, targets), step_streams(7, step))
    copied = copy.deepcopy(model)
    copied.zero_grad()
    feats = copied.backbone(mixed.images)
    logits = copied.head(copied.neck(feats) if copied.with_neck else feats)
    reference_loss = -((0.9 * mixed.targets + 0.1 / 5) * logits.log_softmax(dim=1)).sum() / len(images)
    reference_loss.backward()
    return {name: parameter.grad for name, parameter in copied.named_parameters()}


@pytest.mark.parametrize('family', ['vit', 'pvt', 'cait', 'swin'])
@pytest.mark.parametrize('transport', [False, True])
def test_the_saliency_pass_leaves_no_gradients(make_classifier, make_samples, enter_run, family, transport):
    """Two accumulated steps: what the pass of each finds in ``grad`` it leaves there, and the sum is that by hand."""
    model = make_classifier(family, augments=[dict(PUZZLEMIX, transport=transport)]).train()
    batches = [(torch.randn(3, 3, 32, 32), [0, 1, 2]), (torch.randn(2, 3, 32, 32), [4, 1])]
    modes = {name: module.training for name, module in model.named_modules()}
    expected = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    for step, (images, labels) in enumerate(batches):
        enter_run(7, step)
        samples = make_samples(labels)
        held = {name: parameter.grad for name, parameter in model.named_parameters()}
        values = {name: None if grad is None else grad.clone() for name, grad in held.items()}
        losses = model.loss(images, samples)
        for name, parameter in model.named_parameters():
            assert parameter.grad is held[name]
            assert parameter.grad is None or torch.equal(parameter.grad, values[name])
        assert {name: module.training for name, module in model.named_modules()} == modes
        losses['loss_cls'].backward()
        targets = torch.stack([sample.gt_score for sample in samples])
        for name, grad in by_hand(model, images, targets, step).items():
            expected[name] += grad
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], msg=name)
        assert parameter.grad.abs().sum() > 0


@pytest.mark.parametrize('autocast', [False, True])
@pytest.mark.parametrize('family', ['cait', 'pvt'])
def test_recomputed_activations_are_those_of_evaluation(make_classifier, make_samples, family, autocast):
    """The gradient at the images is that of a model that keeps its activations and drops no blocks.

    Outside of evaluation mode the backward pass would drop some of the blocks that it recomputes.
    """
    images, samples = torch.randn(3, 3, 32, 32), make_samples([0, 1, 2])
    targets, found = torch.stack([sample.gt_score for sample in samples]), []
    for backbone in (dict(), dict(with_cp=True, drop_path_rate=0.5), dict(drop_path_rate=0.5)):
        torch.manual_seed(3)
        model = make_classifier(family, augments=[PUZZLEMIX], backbone=backbone).train()
        with torch.no_grad(), torch.autocast('cpu', dtype=torch.bfloat16, enabled=autocast):
            (answer,) = model.answer(model.mixing.methods[0].questions, images, targets)
            found.append(answer.input_gradient)
        assert all(module.training for module in model.modules())
        assert all(parameter.grad is None for parameter in model.parameters())
    assert found[0].abs().sum() > 0
    for gradients in found[1:]:
        torch.testing.assert_close(gradients, found[0])

    model = make_classifier(family, augments=[PUZZLEMIX], backbone=dict(with_cp=True, drop_path_rate=0.5)).train()
    with torch.autocast('cpu', dtype=torch.bfloat16, enabled=autocast):
        loss = model.loss(images, samples)['loss_cls']
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize('family', ['vit', 'pvt'])
def test_a_training_step_under_autocast(make_classifier, make_samples, family):
    """The cache of cast weights holds nothing of the saliency pass: all gradients arrive, as without that pass."""
    model = make_classifier(family, augments=[PUZZLEMIX]).train()
    images, samples = torch.randn(3, 3, 32, 32), make_samples([0, 1, 2])
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = model.loss(images, samples)['loss_cls']
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name
