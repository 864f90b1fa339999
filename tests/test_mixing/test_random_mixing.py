import random
from collections import Counter

import numpy as np
import pytest
import torch
from mmpretrain.models.utils.batch_augments import CutMix, Mixup, ResizeMix

from smmix_mm.mixing import RandomMixing, SMMix, StockMixing, Unmixed, random_mixing, step_streams

MIXUP = dict(type='mmpretrain.Mixup', alpha=0.8)
CUTMIX = dict(type='mmpretrain.CutMix', alpha=1.0)
RESIZEMIX = dict(type='mmpretrain.ResizeMix', alpha=1.0)
SMMIX = dict(type='smmix_mm.SMMix')


def name_of(method):
    return type(getattr(method, 'augment', method)).__name__


def draw_names(mixing, enter_run, steps, seed=0):
    names = []
    for step in steps:
        enter_run(seed=seed, iteration=step)
        names.append(name_of(mixing.draw()[0]))
    return names


def refuse(*_, **__):
    raise AssertionError('stock augmentations ask for no motivation')


@pytest.mark.parametrize(
    ('probs', 'expected'),
    [
        (None, dict(Mixup=0.5, SMMix=0.5, Unmixed=0)),
        ([0.5, 0.5], dict(Mixup=0.5, SMMix=0.5, Unmixed=0)),
        ([0.1, 0.6], dict(Mixup=0.1, SMMix=0.6, Unmixed=0.3)),
        ([0.0, 1.0], dict(Mixup=0, SMMix=1, Unmixed=0)),
        ([0.0, 0.0], dict(Mixup=0, SMMix=0, Unmixed=1)),
    ],
)
def test_methods_are_drawn_with_their_probabilities(probs, expected, enter_run):
    """What the probabilities leave over stays unmixed."""
    counts = Counter(draw_names(RandomMixing([MIXUP, SMMIX], probs), enter_run, range(2000)))
    assert set(counts) == {name for name, prob in expected.items() if prob}
    for name, prob in expected.items():
        # Four standard deviations.
        assert abs(counts[name] - 2000 * prob) <= 4 * (2000 * prob * (1 - prob)) ** 0.5


@pytest.mark.parametrize('augments', [(), []])
def test_no_methods_mix_nothing(augments, enter_run):
    assert draw_names(RandomMixing(augments), enter_run, range(5)) == ['Unmixed'] * 5


def test_one_method_needs_no_list(enter_run):
    assert draw_names(RandomMixing(SMMIX), enter_run, range(5)) == ['SMMix'] * 5
    assert set(draw_names(RandomMixing(SMMIX, probs=0.5), enter_run, range(50))) == {'SMMix', 'Unmixed'}


def test_methods_may_be_instances():
    mixing = RandomMixing([Mixup(alpha=0.8), SMMix()])
    assert [type(method) for method in mixing.methods] == [StockMixing, SMMix, Unmixed]


@pytest.mark.parametrize('entry', [SMMix, Mixup])
def test_types_may_be_classes(entry):
    """As pure Python configs have them."""
    settings = dict(alpha=0.8) if entry is Mixup else {}
    assert name_of(RandomMixing(dict(type=entry, **settings)).methods[0]) == entry.__name__


@pytest.mark.parametrize(
    ('probs', 'message'),
    [
        ([0.5], 'probs.*1 for 2'),
        ([0.2, 0.2, 0.2], 'probs.*3 for 2'),
        (0.5, 'probs.*1 for 2'),
        ([0.7, 0.7], r'probs.*at most 1.*\[0.7, 0.7\]'),
        ([-0.1, 0.5], r'probs.*non-negative.*-0.1'),
    ],
)
def test_probabilities_are_checked(probs, message):
    with pytest.raises(ValueError, match=message):
        RandomMixing([MIXUP, SMMIX], probs)


def test_probabilities_without_methods_are_an_error():
    with pytest.raises(ValueError, match='probs'):
        RandomMixing([], [0.5])
    assert RandomMixing([], []).probs == RandomMixing([]).probs == [1.0]


def test_probabilities_that_sum_to_one_but_for_rounding_are_no_error(enter_run):
    mixing = RandomMixing([MIXUP, CUTMIX, SMMIX], [1 / 3 + 1e-9] * 3)
    assert sum(mixing.probs) == pytest.approx(1, abs=1e-12)
    assert 'Unmixed' not in draw_names(mixing, enter_run, range(200))


@pytest.mark.parametrize('name', ['NoSuchMix', 'mmpretrain.NoSuchMix', 'smmix_mm.NoSuchMix'])
def test_unknown_methods_are_named_beside_the_known_ones(name):
    with pytest.raises(ValueError, match=rf'augments.*{name}.*CutMix.*SMMix'):
        RandomMixing([dict(type=name)])


def test_a_method_without_type_is_named():
    with pytest.raises(ValueError, match=r'augments.*type'):
        RandomMixing([dict(alpha=0.8)])


def test_draws_depend_on_seed_and_iteration_alone(enter_run):
    """Two models, one of them resumed, draw the same; another seed draws something else."""
    names = draw_names(RandomMixing([MIXUP, SMMIX]), enter_run, range(40))
    torch.manual_seed(123)
    np.random.seed(123)
    random.seed(123)
    assert draw_names(RandomMixing([MIXUP, SMMIX]), enter_run, range(20, 40)) == names[20:]
    assert draw_names(RandomMixing([MIXUP, SMMIX]), enter_run, range(40), seed=1) != names


def test_what_is_left_of_a_step_is_determined_too(enter_run):
    drawn = []
    for _ in range(2):
        enter_run(seed=2, iteration=9)
        streams = RandomMixing([MIXUP, SMMIX]).draw()[1]
        drawn.append((streams.shared.random(), streams.local.random()))
    assert drawn[0] == drawn[1]
    assert drawn[0][0] != drawn[0][1]


def draws_of_ranks(enter_run, monkeypatch, **settings):
    """For each of three ranks the methods of 30 steps, and what both streams give next."""
    drawn = []
    for rank in range(3):
        monkeypatch.setattr(random_mixing, 'get_rank', lambda rank=rank: rank)
        mixing, of_rank = RandomMixing([MIXUP, SMMIX], **settings), []
        for step in range(30):
            enter_run(seed=4, iteration=step)
            method, streams = mixing.draw()
            of_rank.append((name_of(method), streams.shared.random(), streams.local.random()))
        drawn.append([list(column) for column in zip(*of_rank, strict=True)])
    return drawn


def test_ranks_agree_on_the_method_and_on_nothing_local(enter_run, monkeypatch):
    (names, shared, local), *others = draws_of_ranks(enter_run, monkeypatch)
    for other_names, other_shared, other_local in others:
        assert (other_names, other_shared) == (names, shared)
        assert not set(other_local) & set(local)


def test_ranks_may_draw_by_themselves(enter_run, monkeypatch):
    """The authors' way, behind a switch."""
    ranks = draws_of_ranks(enter_run, monkeypatch, same_on_all_ranks=False)
    assert len({tuple(names) for names, _, _ in ranks}) == 3
    assert not set(ranks[0][1]) & set(ranks[1][1])


@pytest.mark.parametrize('augment', [MIXUP, CUTMIX, RESIZEMIX])
def test_stock_augmentations_draw_from_the_local_stream_alone(augment):
    """Whatever the global generators say, and without moving them."""
    method = RandomMixing(augment).methods[0]
    images, targets = torch.rand(4, 3, 8, 8), torch.eye(4)
    results = []
    for noise, step in ((1, 0), (2, 0), (1, 1)):
        random.seed(noise)
        np.random.seed(noise)
        torch.manual_seed(noise)
        before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
        mixed = method(images.clone(), targets.clone(), refuse, step_streams(0, step))
        assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before
        results.append(mixed)
    assert torch.equal(results[0].images, results[1].images)
    assert torch.equal(results[0].targets, results[1].targets)
    assert not torch.equal(results[0].images, results[2].images)


@pytest.mark.parametrize('augment', [Mixup(alpha=0.8), CutMix(alpha=1.0), ResizeMix(alpha=1.0)])
def test_stock_augmentations_are_unchanged(augment):
    """Seeded alike, mmpretrain's own call gives the same."""
    images, targets, streams = torch.rand(4, 3, 8, 8), torch.eye(4), step_streams(0, 3)
    mixed = StockMixing(augment)(images.clone(), targets.clone(), refuse, streams)
    seeds = step_streams(0, 3).local.integers(2**32, size=3).tolist()
    random.seed(seeds[0])
    np.random.seed(seeds[1])
    torch.manual_seed(seeds[2])
    expected_images, expected_targets = augment(images.clone(), targets.clone())
    assert torch.equal(mixed.images, expected_images)
    assert torch.equal(mixed.targets, expected_targets)
    assert mixed.source_mask is None


def test_unmixed_steps_leave_the_batch_as_it_is():
    images, targets = torch.rand(2, 3, 4, 4), torch.eye(2)
    mixed = Unmixed()(images, targets, refuse, step_streams(0, 0))
    assert mixed.images is images
    assert mixed.targets is targets
