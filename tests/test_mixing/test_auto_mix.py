import copy
import io
import math

import numpy as np
import pytest
import reference
import torch
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper
from torch import nn

from smmix_mm.mixing import MixBlock, step_streams
from smmix_mm.models.classifiers.motivation import classify
from smmix_mm.registry import BATCH_AUGMENTS

LABELS = [0, 3, 1, 4, 2]
FAMILIES = pytest.mark.parametrize('family', ['vit', 'pvt'])
MOMENTUM = 'mixing.methods.0.momentum_model.'
BLOCK = 'mixing.methods.0.mix_block.'
SECOND = 'mixing.methods.0.one_hot_head.'


def automix(**settings):
    return dict(type='smmix_mm.AutoMix', **settings)


@pytest.fixture
def make_model(make_classifier):
    """A tiny classifier with AutoMix alone, in training mode, whose mix block's masks are far from uniform.

    The mix block learns in every step, unless the settings say otherwise.
    """

    def make(family='vit', settings=None, **others):
        settings = dict(learn_prob=1.0) | (settings or {})
        model = make_classifier(family, augments=automix(**settings), **others).train()
        with torch.no_grad():
            for parameter in model.mixing.methods[0].mix_block.parameters():
                parameter.add_(torch.randn_like(parameter))
        return model

    return make


@pytest.fixture
def progress(enter_run):
    """``progress(iteration, max_iters)``: a run that is so far."""

    def enter(iteration, max_iters, seed=0):
        enter_run(seed, iteration)
        MessageHub.get_current_instance().update_info('max_iters', max_iters)

    return enter


def method_of(model):
    return model.mixing.methods[0]


def trained(model):
    """Parameters of the model itself, by the names that they have in the momentum model."""
    return {name: value for name, value in model.named_parameters() if name.partition('.')[0] in ('backbone', 'head')}


def averaged(model):
    return dict(method_of(model).momentum_model.module.named_parameters())


def fix_draws(model, *draws):
    """Shares and pairs of the next calls, in the place of random ones."""
    draws = iter([(share, torch.tensor(pairs)) for share, pairs in draws])

    method_of(model).draw = lambda stream, images: next(draws)


def gradients(model, losses):
    model.zero_grad()
    sum(losses.values()).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def perturb(model, scale=0.1):
    """What an optimiser might have done."""
    with torch.no_grad():
        for parameter in trained(model).values():
            parameter.add_(torch.randn_like(parameter), alpha=scale)


def layer_map(model, images, layer, grid):
    """What a layer puts out, class token left out, of the model in evaluation mode."""
    backbone, seen = model.backbone, []
    module = backbone.layers[layer - 1] if hasattr(backbone, 'layers') else getattr(backbone, f'block{layer}')[-1]
    handle = module.register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.no_grad():
        backbone(images)
    handle.remove()
    tokens = seen[0][:, seen[0].shape[1] - grid[0] * grid[1] :]
    return torch.stack([tokens[:, index] for index in range(tokens.shape[1])], dim=2).reshape(len(images), -1, *grid)


def mix_by_loops(images, pairs, mask):
    """Pixel by pixel; each takes the mask of the token that it lies in."""
    mixed = torch.zeros_like(images)
    height, width = images.shape[-2:]
    rows, cols = mask.shape[1:]
    for image in range(len(images)):
        for row in range(height):
            for col in range(width):
                part = mask[image, row * rows // height, col * cols // width]
                pixel = part * images[pairs[image], :, row, col] + (1 - part) * images[image, :, row, col]
                mixed[image, :, row, col] = pixel
    return mixed


def mix_labels(one_hot, share, pairs):
    return torch.stack([share * one_hot[source] + (1 - share) * label for label, source in zip(one_hot, pairs)])  # noqa: B905


def step_by_loops(model, images, labels, draws, layer, grid, weight=0.1, margin=0.1):
    """The definition of a first step, whose momentum model is the model itself."""
    one_hot = torch.eye(model.head.num_classes)[labels]
    momentum, block = copy.deepcopy(model).requires_grad_(False), method_of(model).mix_block
    second_head = method_of(model).one_hot_head
    features = layer_map(momentum, images, layer, grid)

    share, pairs = draws[0]
    mask = block(features[pairs], features, share)
    logits = momentum.head(momentum.backbone(mix_by_loops(images, pairs, mask)))
    block_loss = reference.cross_entropy(logits, mix_labels(one_hot, share, pairs), 0.1)
    excess = max(abs(sum(image.sum() for image in mask) / mask.numel() - share) - margin, 0 * mask.sum())

    share, second_pairs = draws[1]
    with torch.no_grad():
        second_mask = block(features[second_pairs], features, share)
        mixed = mix_by_loops(images, second_pairs, second_mask)
    return dict(
        loss_cls=reference.cross_entropy(
            model.head(model.backbone(mixed)), mix_labels(one_hot, share, second_pairs), 0.1
        ),
        loss_one_hot=reference.cross_entropy(second_head(model.backbone(images)), one_hot, 0.1),
        loss_mix_block=block_loss,
        loss_mask=weight * excess,
    )


@pytest.mark.parametrize(
    ('family', 'size', 'settings', 'layer', 'grid', 'draws'),
    [
        ('vit', (32, 32), dict(), 2, (4, 4), [(0.9, [2, 0, 1]), (0.3, [0, 2, 1])]),
        ('vit', (16, 32), dict(layer=3, mask_weight=2.0, mask_margin=0.0), 3, (2, 4), [(0.2, [1, 0]), (0.6, [0, 1])]),
        ('vit', (16, 16), dict(layer=1, mix_block=dict(reduction=3)), 1, (2, 2), [(0.88, [0]), (0.5, [0])]),
        ('pvt', (32, 32), dict(), 3, (4, 4), [(0.15, [1, 0]), (0.7, [1, 0])]),
        ('pvt', (32, 48), dict(layer=2), 2, (4, 6), [(0.85, [1, 2, 0]), (0.2, [2, 1, 0])]),
        ('pvt', (16, 32), dict(layer=4), 4, (2, 4), [(0.4, [0, 1]), (0.9, [1, 0])]),
    ],
)
def test_a_step_equals_one_by_loops(make_model, make_samples, family, size, settings, layer, grid, draws):
    """All losses and the gradients of all parameters: odd batches, one image, non-square grids."""
    # In double precision: the order of sums differs between versions of torch.
    model = make_model(family, settings).double()
    batch = len(draws[0][1])
    images, samples = torch.randn(batch, 3, *size).double(), make_samples(LABELS[:batch])
    terms = dict(weight=settings.get('mask_weight', 0.1), margin=settings.get('mask_margin', 0.1))
    expected = step_by_loops(model, images, LABELS[:batch], draws, layer, grid, **terms)
    wanted = gradients(model, expected)

    fix_draws(model, *draws)
    losses = model.loss(images.clone(), samples)
    assert list(losses) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, rtol=1e-9, atol=1e-12, msg=name, check_dtype=False)
    assert expected['loss_mask'] > 0
    for name, value in gradients(model, losses).items():
        if name.startswith(MOMENTUM):
            assert value is None
        else:
            # Position embeddings are resized in single precision.
            atol = 1e-6 * max(1.0, wanted[name].abs().max().item())
            torch.testing.assert_close(value, wanted[name], rtol=1e-5, atol=atol, msg=name)


def test_the_two_sides_do_not_teach_each_other(make_model, make_samples):
    """The mix block learns from its own losses alone, backbone and head from theirs."""
    model = make_model()
    fix_draws(model, *[(0.9, [2, 0, 1]), (0.3, [0, 2, 1])] * 2)
    images, samples = torch.randn(3, 3, 32, 32), make_samples(LABELS[:3])
    for names in (('loss_cls', 'loss_one_hot'), ('loss_mix_block', 'loss_mask')):
        losses = model.loss(images, samples)
        # The classifier adds zeros to its first loss, so that no gradient is absent.
        found = gradients(model, {name: losses[name] for name in names})
        learnt = {name for name, value in found.items() if value is not None and value.abs().max() > 0}
        assert all(name.startswith(BLOCK) == (names[0] == 'loss_mix_block') for name in learnt)
        assert len(learnt) > 3


def test_mixed_and_unmixed_images_go_through_the_backbone_together(make_model):
    model = make_model()
    images, targets = torch.randn(3, 3, 32, 32), torch.eye(5)[LABELS[:3]]
    fix_draws(model, (0.5, [0, 1, 2]), (0.25, [1, 2, 0]))
    mixed = method_of(model)(images.clone(), targets, None, step_streams(0, 0))
    assert torch.equal(mixed.images[3:], images)
    assert torch.equal(mixed.targets[3:], targets)
    torch.testing.assert_close(mixed.targets[:3], mix_labels(targets, 0.25, [1, 2, 0]))
    assert not mixed.images.requires_grad
    # Both images are seen at every pixel, between the two.
    low, high = torch.minimum(images, images[[1, 2, 0]]), torch.maximum(images, images[[1, 2, 0]])
    assert ((mixed.images[:3] >= low - 1e-6) & (mixed.images[:3] <= high + 1e-6)).all()


def test_the_backbone_runs_once(make_model, make_samples):
    model, runs = make_model(), []
    model.backbone.register_forward_pre_hook(lambda module, args: runs.append(len(args[0])))
    model.loss(torch.randn(3, 3, 32, 32), make_samples(LABELS[:3]))
    assert runs == [6]


@FAMILIES
def test_the_momentum_model_is_the_model_at_first_and_moves_a_little_after(make_model, make_samples, family):
    """The moving average by hand over several steps, outside of a run: the momentum of its start."""
    model = make_model(family, dict(momentum=0.25))
    images, samples, expected = torch.randn(2, 3, 32, 32), make_samples(LABELS[:2]), None
    for step in range(4):
        perturb(model)
        model.loss(images, samples)
        now = {name: value.detach().double() for name, value in trained(model).items()}
        if expected is None:
            expected = now
            assert all(torch.equal(averaged(model)[name], value) for name, value in trained(model).items())
        else:
            expected = {name: 0.75 * value + 0.25 * now[name] for name, value in expected.items()}
        assert set(averaged(model)) == set(expected)
        for name, value in averaged(model).items():
            torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6, msg=name)
        assert method_of(model).momentum_model.steps == step + 1


@pytest.mark.parametrize(
    ('iteration', 'part'),
    [(0, 1e-3), (1, 1e-3), (249, 1e-3), (250, None), (500, (1e-3 + 1e-5) / 2), (999, None), (1000, 1e-5)],
)
def test_the_momentum_follows_the_run(make_model, make_samples, progress, iteration, part):
    """0.999 of the paper for the first quarter, 0.99999 at the end, the rest of half a cosine between them."""
    model = make_model()
    images, samples = torch.randn(2, 3, 32, 32), make_samples(LABELS[:2])
    model.loss(images, samples)
    before = {name: value.clone() for name, value in averaged(model).items()}
    with torch.no_grad():
        for parameter in trained(model).values():
            parameter.add_(100)
    progress(iteration, 1000)
    model.loss(images, samples)
    part = part or 1e-5 + (1e-3 - 1e-5) * (math.cos(math.pi * iteration / 1000) + 1) / 2
    for name, value in averaged(model).items():
        torch.testing.assert_close(value - before[name], torch.full_like(value, 100 * part), rtol=1e-2, atol=1e-6)


def test_the_momentum_model_is_in_training_mode_but_never_trained(make_model, make_samples):
    """No gradients, but stochastic depth in what it says."""
    model = make_model(backbone=dict(drop_path_rate=0.5, drop_rate=0.5))
    momentum = method_of(model).momentum_model
    images, samples = torch.randn(3, 3, 32, 32), make_samples(LABELS[:3])
    sum(model.loss(images, samples).values()).backward()
    assert all(module.training for module in momentum.modules())
    assert not any(parameter.requires_grad for parameter in momentum.parameters())
    assert all(parameter.grad is None for parameter in momentum.parameters())
    assert not torch.equal(momentum(images), momentum(images))
    model.eval()
    assert torch.equal(momentum(images), momentum(images))


@pytest.mark.parametrize('size', [(32, 32), (48, 32)])
@FAMILIES
def test_it_says_what_the_moved_weights_say(make_model, make_samples, family, size):
    """On other image sizes too, for which PVT keeps resized position embeddings in evaluation."""
    model = make_model(family, dict(momentum=0.5))
    momentum, images = method_of(model).momentum_model, torch.randn(2, 3, *size)
    for _ in range(3):
        perturb(model)
        model.loss(images, make_samples(LABELS[:2]))
        fresh = copy.deepcopy(model).eval()
        trained_names = trained(fresh)
        with torch.no_grad():
            for name, value in averaged(model).items():
                trained_names[name].copy_(value)
            torch.testing.assert_close(momentum(images), fresh.head(fresh.backbone(images)))
            features = fresh.adapter.read_layer(images, momentum.layer)
        torch.testing.assert_close(momentum.read_layer(images), features)


def test_a_neck_and_frozen_stages_are_copied_too(make_model, make_samples):
    model = make_model(
        backbone=dict(out_type='featmap', frozen_stages=1), neck=dict(type='mmpretrain.GlobalAveragePooling')
    )
    images = torch.randn(2, 3, 32, 32)
    losses = model.loss(images, make_samples(LABELS[:2]))
    sum(losses.values()).backward()
    logits = method_of(model).momentum_model(images)
    torch.testing.assert_close(logits, classify(model.eval(), model.backbone(images)))


def test_running_statistics_are_those_of_the_model(make_model, make_samples):
    """Buffers are copied, not averaged."""
    neck = dict(type='mmpretrain.LinearNeck', in_channels=32, out_channels=32, norm_cfg=dict(type='BN1d'), gap_dim=0)
    model = make_model(neck=neck)
    for _ in range(2):
        perturb(model)
        before = model.neck.norm.running_mean.clone()
        method_of(model).momentum_model.update_parameters(model, 0.1)
        assert torch.equal(method_of(model).momentum_model.module['neck'].norm.running_mean, before)
        model.loss(torch.randn(4, 3, 32, 32), make_samples(LABELS[:4]))
        assert not torch.equal(model.neck.norm.running_mean, before)


def test_copies_follow_their_own_model(make_model, make_samples):
    """As EMA hooks make them: neither learns anything of the other's weights."""
    model = make_model(settings=dict(momentum=0.5))
    images, samples = torch.randn(2, 3, 32, 32), make_samples(LABELS[:2])
    model.loss(images, samples)
    twin = copy.deepcopy(model)
    before = {name: value.clone() for name, value in averaged(model).items()}
    perturb(twin)
    twin.loss(images, samples)
    for name, value in averaged(twin).items():
        torch.testing.assert_close(value, (before[name] + trained(twin)[name]) / 2, msg=name)
        assert torch.equal(averaged(model)[name], before[name])
        if value.dim() != 0:
            assert not torch.equal(value, before[name])


def test_the_model_is_not_counted_twice(make_model):
    """Beside it stand the momentum model with its counter, the mix block, and the second head."""
    model = make_model()
    names = set(model.state_dict())
    extra = {name for name in names if not name.startswith(('backbone.', 'head.', 'data_preprocessor.'))}
    own = {name for name in names if name.startswith(('backbone.', 'head.'))}
    block = {BLOCK + name for name in MixBlock(32).state_dict()}
    second = {f'{SECOND}{name.removeprefix("head.")}' for name in own if name.startswith('head.')}
    assert extra == {f'{MOMENTUM}module.{name}' for name in own} | {f'{MOMENTUM}steps'} | block | second
    assert {name for name, value in model.named_parameters() if not value.requires_grad} >= {
        f'{MOMENTUM}module.{name}' for name in trained(model)
    }


@FAMILIES
def test_a_resumed_run_goes_on_exactly(make_model, make_samples, progress, family):
    """Weights, momentum model and mix block after five steps: in one go, and through a checkpoint after the second."""

    def train(model, optimizer, steps):
        for step in steps:
            torch.manual_seed(step)
            progress(step, 5)
            images, samples = torch.randn(3, 3, 32, 32), make_samples(LABELS[:3])
            optimizer.update_params(sum(model.loss(images, samples).values()))

    def start():
        model = make_model(family, dict(momentum=0.1))
        return model, OptimWrapper(torch.optim.AdamW(model.parameters(), lr=0.01))

    whole, optimizer = start()
    train(whole, optimizer, [0, 1])
    saved = io.BytesIO()
    torch.save(dict(model=whole.state_dict(), optimizer=optimizer.state_dict()), saved)
    train(whole, optimizer, [2, 3, 4])

    resumed, optimizer = start()
    perturb(resumed)
    saved.seek(0)
    checkpoint = torch.load(saved)
    resumed.load_state_dict(checkpoint['model'])
    optimizer.load_state_dict(checkpoint['optimizer'])
    train(resumed, optimizer, [2, 3, 4])
    expected = whole.state_dict()
    for name, value in resumed.state_dict().items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize(
    ('max_iters', 'iteration', 'weight'),
    [(None, 7, 0.5), (12, 0, 0.5), (12, 4, 0.375), (12, 6, 0.25), (12, 12, 0.0), (12, 14, 0.0)],
)
def test_the_weight_of_the_mask_falls_over_the_run(make_model, make_samples, progress, max_iters, iteration, weight):
    """By half a cosine; constant where no run says how long it is."""
    model = make_model(settings=dict(mask_weight=0.5, mask_margin=0.02))
    block = method_of(model).mix_block
    with torch.no_grad():
        for parameter in block.value.parameters():
            parameter.zero_()
    progress(iteration, max_iters)
    fix_draws(model, (0.8, [1, 0]), (0.5, [1, 0]))
    losses = model.loss(torch.randn(2, 3, 32, 32), make_samples(LABELS[:2]))
    # The mask is 1 / 2 everywhere: 0.3 off, of which 0.28 lie beyond the margin.
    assert losses['loss_mask'].item() == pytest.approx(weight * 0.28, abs=1e-6)


def test_within_the_margin_the_mask_is_free(make_model, make_samples):
    model = make_model()
    with torch.no_grad():
        for parameter in method_of(model).mix_block.value.parameters():
            parameter.zero_()
    fix_draws(model, (0.41, [1, 0]), (0.5, [1, 0]))
    assert model.loss(torch.randn(2, 3, 32, 32), make_samples(LABELS[:2]))['loss_mask'] == 0


def test_a_mask_term_of_weight_zero_is_not_computed(make_model, make_samples):
    model = make_model(settings=dict(mask_weight=0))
    images, samples = torch.randn(2, 3, 32, 32), make_samples(LABELS[:2])
    for share in (0.5, 0.01):
        fix_draws(model, (share, [1, 0]), (0.5, [1, 0]))
        assert list(model.loss(images, samples)) == ['loss_cls', 'loss_one_hot', 'loss_mix_block']


@pytest.mark.parametrize('share', [0.02, 0.0799, 0.08, 0.5, 0.9199, 0.9201, 0.99])
def test_small_shares_are_plain_mixup(make_model, make_samples, share):
    """On either side, for the model alone: the mix block learns from its own draw at any share."""
    model, is_plain = make_model(), share in (0.02, 0.0799, 0.9201, 0.99)
    images, targets = torch.randn(3, 3, 32, 32), torch.eye(5)[LABELS[:3]]
    pairs = [2, 0, 1]
    fix_draws(model, (0.5, pairs), (share, pairs), (share, pairs), (0.5, pairs))
    mixed = method_of(model)(images.clone(), targets, None, step_streams(0, 0))
    mixup = torch.stack([share * images[source] + (1 - share) * image for image, source in zip(images, pairs)])  # noqa: B905
    assert torch.allclose(mixed.images[:3], mixup, atol=1e-5) == is_plain
    torch.testing.assert_close(mixed.targets[:3], mix_labels(targets, share, pairs))

    losses = model.loss(images, make_samples(LABELS[:3]))
    found = gradients(model, losses)
    block = [value for name, value in found.items() if name.startswith(BLOCK)]
    assert len(block) == 4
    assert all((value != 0).any() for value in block)
    assert losses['loss_mix_block'] > 0


@pytest.mark.parametrize('mask_weight', [0.0, 0.5])
def test_in_other_steps_the_mask_alone_is_tied_to_the_share(make_model, make_samples, mask_weight):
    """Its gradients are there, zero at the least; the momentum model does not classify then."""
    model = make_model(settings=dict(learn_prob=0.0, mask_weight=mask_weight, mask_margin=0.0))
    runs = []
    method_of(model).momentum_model.module['head'].register_forward_hook(lambda *_: runs.append(1))
    fix_draws(model, (0.9, [1, 0]), (0.5, [1, 0]))
    losses = model.loss(torch.randn(2, 3, 32, 32), make_samples(LABELS[:2]))
    assert losses['loss_mix_block'] == 0
    assert ('loss_mask' in losses) == (mask_weight > 0)
    block = [value for name, value in gradients(model, losses).items() if name.startswith(BLOCK)]
    assert all((value != 0).any() == (mask_weight > 0) for value in block)
    assert not runs


def test_the_mix_block_learns_in_that_part_of_the_steps(make_classifier):
    """The same ones on every rank: what decides is the shared stream."""
    model = make_classifier(augments=automix(learn_prob=0.8)).train()
    images, targets = torch.randn(1, 3, 32, 32), torch.eye(5)[:1]
    learns = {rank: [] for rank in (0, 1)}
    for rank, found in learns.items():
        for step in range(150):
            with torch.no_grad():
                mixed = method_of(model)(images, targets, None, step_streams(3, step, rank=rank))
            found.append(bool(mixed.losses['loss_mix_block']))
    assert learns[0] == learns[1]
    # Within three standard deviations.
    assert np.mean(learns[0]) == pytest.approx(0.8, abs=3 * math.sqrt(0.8 * 0.2 / 150))


def test_the_second_head_begins_as_the_first_does(make_classifier):
    """As published, and not with the same weights."""
    model = make_classifier(augments=automix())
    model.init_weights()
    first, second = model.head.layers.head, method_of(model).one_hot_head.layers.head
    assert first.weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert second.weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert not second.bias.any()
    assert not torch.equal(first.weight, second.weight)


def test_min_share_of_zero_never_falls_back_and_of_a_half_always_does(make_model):
    shares = np.linspace(0.001, 0.999, 99)
    for bound, plain in ((0, False), (0.5, True)):
        method = method_of(make_model(settings=dict(min_share=bound)))
        assert all(method._is_plain(share) == plain for share in shares if share != 0.5)


def test_shares_come_from_beta_and_pairs_are_permutations():
    """Mean 1 / 2 and variance 1 / (4 * (2 * alpha + 1)) of Beta(alpha, alpha)."""
    for alpha in (2.0, 0.5):
        method, stream = BATCH_AUGMENTS.build(automix(alpha=alpha)), np.random.default_rng(0)
        draws = [method.draw(stream, torch.zeros(4, 1, 1, 1)) for _ in range(3000)]
        shares = np.array([share for share, _ in draws])
        assert shares.mean() == pytest.approx(0.5, abs=0.02)
        assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)
        assert all(sorted(pairs.tolist()) == [0, 1, 2, 3] for _, pairs in draws)
        assert len({tuple(pairs.tolist()) for _, pairs in draws}) == 24


def test_two_draws_a_step_from_the_local_stream(make_model):
    """The same step mixes alike; another step, or another rank, does not; nothing global is touched."""
    model = make_model()
    images, targets = torch.randn(4, 3, 32, 32), torch.eye(5)[LABELS[:4]]
    drawn = []
    draw = method_of(model).draw
    method_of(model).draw = lambda stream, images: drawn.append(draw(stream, images)) or drawn[-1]

    def mix(**key):
        drawn.clear()
        before = torch.get_rng_state(), np.random.get_state()[1].tolist()
        streams = step_streams(3, **key)
        mixed = method_of(model)(images.clone(), targets, None, streams)
        assert torch.equal(torch.get_rng_state(), before[0])
        assert np.random.get_state()[1].tolist() == before[1]
        assert len(drawn) == 2
        assert drawn[0][0] != drawn[1][0]
        return mixed.images

    first = mix(iteration=5)
    assert torch.equal(mix(iteration=5), first)
    assert not torch.equal(mix(iteration=6), first)
    assert not torch.equal(mix(iteration=5, rank=1), first)


@FAMILIES
def test_autocast_trains_all_that_is_to_be_trained(make_model, make_samples, family):
    """Nearly as in full precision; no weight is cut off from the graph by a pass without gradients."""
    model = make_model(family)
    model.init_weights()  # half precision tells nothing about attention as sharp as the tests'
    images, samples = torch.randn(4, 3, 32, 32), make_samples(LABELS[:4])
    found = []
    for enabled in (False, True):
        fix_draws(model, (0.85, [1, 2, 3, 0]), (0.3, [3, 0, 1, 2]))
        with torch.autocast('cpu', dtype=torch.bfloat16, enabled=enabled):
            losses = model.loss(images, samples)
        found.append(gradients(model, losses))
    for begins in ('backbone.', 'head.', BLOCK):
        names = [name for name in found[0] if name.startswith(begins)]
        assert all((found[0][name] == 0).all() or (found[1][name] != 0).any() for name in names)
        full, half = (torch.cat([values[name].flatten() for name in names]) for values in found)
        assert torch.cosine_similarity(full, half, dim=0) > 0.9


def test_gradients_accumulate(make_model, make_samples):
    """Two micro-steps give the sum of their gradients; in between nothing is reset."""
    model = make_model()
    draws = [(0.8, [1, 0, 2]), (0.3, [2, 1, 0])]
    batches = [(torch.randn(3, 3, 32, 32), make_samples(LABELS[:3])) for _ in range(2)]
    found = []
    for batch in batches:
        fix_draws(model, *draws)
        found.append(gradients(model, model.loss(*batch)))
    model.zero_grad()
    for batch in batches:
        fix_draws(model, *draws)
        sum(model.loss(*batch).values()).backward()
    for name, parameter in model.named_parameters():
        if not name.startswith(MOMENTUM):
            torch.testing.assert_close(parameter.grad, found[0][name] + found[1][name], rtol=1e-4, atol=1e-6)


def test_beside_another_method_no_gradient_is_absent(make_classifier, make_samples):
    """Steps of either kind leave every trained parameter a gradient; only AutoMix's move the momentum model."""
    augments = [automix(), dict(type='smmix_mm.SMMix')]
    images, samples = torch.randn(2, 3, 32, 32), make_samples(LABELS[:2])
    for probs, steps in (([1.0, 0.0], 1), ([0.0, 1.0], 0)):
        model = make_classifier(augments=augments, probs=probs).train()
        found = gradients(model, model.loss(images, samples))
        assert {name for name, value in found.items() if value is None} == {
            f'{MOMENTUM}module.{name}' for name in averaged(model)
        }
        assert method_of(model).momentum_model.steps == steps


def test_the_mix_block_learns(make_model, make_samples):
    """Its losses fall while the rest stands still, and its masks come to follow the shares."""
    model = make_model(settings=dict(mask_weight=4.0))
    method = method_of(model)
    method.mix_block = MixBlock(32)
    optimizer = torch.optim.AdamW(method.mix_block.parameters(), lr=0.02)
    images, samples = torch.randn(4, 3, 32, 32), make_samples(LABELS[:4])
    found = []
    for step in range(150):
        fix_draws(model, (0.2 if step % 2 else 0.8, [1, 0, 3, 2]), (0.5, [1, 0, 3, 2]))
        losses = model.loss(images, samples)
        found.append([losses['loss_mix_block'].item(), losses['loss_mask'].item()])
        optimizer.zero_grad()
        (losses['loss_mix_block'] + losses['loss_mask']).backward()
        optimizer.step()
    assert (np.mean(found[-10:], axis=0) < np.mean(found[:10], axis=0) - 0.05).all()
    features = method.momentum_model.read_layer(images)
    low, high = (method.mix_block(features[[1, 0, 3, 2]], features, share).mean() for share in (0.2, 0.8))
    # They may stay a margin of 0.1 short of the shares, 0.2 and 0.8.
    assert high - low > 0.05


@FAMILIES
def test_training_learns(make_classifier, make_samples, family):
    """The whole of it, with a fresh model: four images are told apart."""
    model = make_classifier(family, augments=automix(momentum=0.05))
    model.init_weights()
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.003)
    images, samples = torch.randn(4, 3, 32, 32), make_samples(LABELS[:4])
    found = []
    for _ in range(30):
        losses = model.loss(images, samples)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        found.append({name: value.item() for name, value in losses.items()})
    for name in ('loss_one_hot', 'loss_mix_block'):
        first, last = (np.mean([losses[name] for losses in part]) for part in (found[:8], found[-8:]))
        assert last < first - 0.1, name


def test_defaults_are_the_papers(make_classifier):
    """Layer: block 2 of 3, block 6 of 12, stage 3 of 4."""
    method = method_of(make_classifier(augments=automix()))
    assert (method.alpha, method.min_share) == (2, 0.08)
    assert (1 - method.momentum, 1 - method.end_momentum) == (0.999, 0.99999)
    assert (method.mask_weight, method.mask_margin) == (0.1, 0.1)
    assert method.learn_prob == 0.8
    assert method.momentum_model.layer == 2
    assert method.mix_block.query_key.out_features == 16
    assert method_of(make_classifier('pvt', augments=automix())).momentum_model.layer == 3
    arch = dict(embed_dims=16, num_layers=12, num_heads=1, feedforward_channels=16)
    head = dict(type='mmpretrain.VisionTransformerClsHead', num_classes=5, in_channels=16)
    head['loss'] = dict(type='mmpretrain.LabelSmoothLoss', label_smooth_val=0.1, mode='original', num_classes=5)
    deep = make_classifier(augments=automix(), backbone=dict(arch=arch), head=head)
    assert method_of(deep).momentum_model.layer == 6


def test_the_mix_block_may_be_another(make_classifier, make_samples):
    class Uniform(nn.Module):
        def __init__(self, in_channels, start):
            super().__init__()
            self.in_channels, self.level = in_channels, nn.Parameter(torch.tensor(start))

        def forward(self, source, target, share):
            return self.level.sigmoid().expand(len(source), *source.shape[2:])

    mix_block = dict(type=Uniform, start=0.5)
    model = make_classifier('pvt', augments=automix(layer=2, mix_block=mix_block)).train()
    assert method_of(model).mix_block.in_channels == 16
    sum(model.loss(torch.randn(2, 3, 32, 32), make_samples(LABELS[:2])).values()).backward()
    assert method_of(model).mix_block.level.grad is not None


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('alpha', 0),
        ('alpha', -1),
        ('alpha', float('inf')),
        ('alpha', None),
        ('momentum', 0),
        ('momentum', 1),
        ('end_momentum', -0.1),
        ('end_momentum', 1),
        ('learn_prob', 1.1),
        ('learn_prob', None),
        ('mask_weight', -0.1),
        ('mask_margin', float('nan')),
        ('min_share', 0.6),
        ('min_share', '0.1'),
    ],
)
def test_settings_outside_their_ranges_are_an_error(name, value):
    with pytest.raises(ValueError, match=f'{name} of AutoMix.*{value}'):
        BATCH_AUGMENTS.build(automix(**{name: value}))


@pytest.mark.parametrize(('family', 'layer'), [('vit', 0), ('vit', 4), ('pvt', 5), ('vit', 1.5), ('pvt', 'last')])
def test_layers_that_the_backbone_lacks_are_an_error(make_classifier, family, layer):
    with pytest.raises(ValueError, match=f'layer of AutoMix.*1 to {dict(vit=3, pvt=4)[family]}.*{layer}'):
        make_classifier(family, augments=automix(layer=layer))


def test_backbones_without_layers_are_refused(make_model):
    model = make_model()
    model.adapter.num_layers = 0
    with pytest.raises(ValueError, match=r'AutoMix.*VisionTransformer.*VisionTransformerAdapter.*num_layers=0'):
        method_of(model).prepare(model)


def test_images_that_the_grid_does_not_divide_are_an_error(make_model, make_samples):
    with pytest.raises(ValueError, match='grid of 5 x 4 for images of 34 x 32 pixels'):
        make_model().loss(torch.randn(2, 3, 34, 32), make_samples(LABELS[:2]))
