import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import reference
import torch

from smmix_mm.losses import SMMixLoss
from smmix_mm.mixing import SMMix, step_streams
from smmix_mm.registry import BATCH_AUGMENTS
from smmix_mm.structures import Features, MixedBatch, Motivation, Question


def answered(attention, logits=None, class_map=None):
    """What was told of unmixed images, made by hand."""
    told = Motivation(grid=tuple(attention.shape[1:]), attention=attention, logits=logits)
    return (told,) if class_map is None else (told, Motivation(grid=told.grid, class_map=class_map))


def draw_many(method, grid, count):
    stream = np.random.default_rng(0)
    return Counter(method.draw_region(grid, stream) for _ in range(count))


def chi_square(counts, probs, count):
    return sum((counts[value] - count * prob) ** 2 / (count * prob) for value, prob in probs.items())


@pytest.mark.parametrize(
    ('side_ratio', 'grid', 'regions'),
    [
        ((0.25, 0.75), (14, 14), [(s, s) for s in range(3, 11)]),
        ((0.25, 0.75), (7, 7), [(s, s) for s in range(1, 6)]),
        ((0.25, 0.75), (4, 8), [(1, 2), (2, 4), (3, 6)]),
        ((0.25, 0.75), (8, 4), [(2, 1), (4, 2), (6, 3)]),
        ((0.25, 0.75), (5, 8), [(1, 2), (2, 3), (3, 5)]),
        ((0.0, 1.0), (4, 4), [(1, 1), (2, 2), (3, 3)]),
        ((0.0, 1.0), (1, 2), None),
        (0.5, (14, 14), [(7, 7)]),
        (0.5, (7, 7), [(3, 3)]),
        (0.5, (7, 14), [(3, 6)]),
    ],
)
def test_integer_rule_draws_whole_sides_evenly(side_ratio, grid, regions):
    """Whole numbers floor(low * g) .. floor(high * g) without 0 and the whole grid; the longer axis in proportion."""
    method = SMMix(side_ratio=side_ratio, region_rule='integer')
    assert method.list_regions(grid) == (regions or [])
    if regions is None:
        with pytest.raises(ValueError, match='side_ratio'):
            method.draw_region(grid, np.random.default_rng(0))
        return
    counts = draw_many(method, grid, 4000)
    assert set(counts) == set(regions)
    # The 99.9 % quantile with 7 degrees of freedom is 24.3.
    assert chi_square(counts, dict.fromkeys(regions, 1 / len(regions)), 4000) < 24.3


@pytest.mark.parametrize(
    ('side_ratio', 'grid'),
    [
        ((0.25, 0.75), (14, 14)),
        ((0.25, 0.75), (7, 7)),
        ((0.0, 1.0), (5, 5)),
        ((0.3, 1.0), (4, 8)),
        ((0.4, 0.6), (9, 5)),
    ],
)
def test_ratio_rule_floors_one_uniform_ratio_on_both_sides(side_ratio, grid):
    """Ratios that give no token are drawn again: what is left of the range stays uniform."""
    low = max(side_ratio[0], 1 / min(grid))
    # Where either side gains a token, a new region begins.
    steps = {low, side_ratio[1]} | {
        k / side for side in grid for k in range(side + 1) if low < k / side < side_ratio[1]
    }
    steps = sorted(steps)
    probs = {}
    for start, end in itertools.pairwise(steps):
        middle = (start + end) / 2
        probs[int(middle * grid[0]), int(middle * grid[1])] = (end - start) / (side_ratio[1] - low)

    counts = draw_many(SMMix(side_ratio=side_ratio, region_rule='ratio'), grid, 4000)
    assert set(counts) == set(probs)
    assert chi_square(counts, probs, 4000) < 24.3


@pytest.mark.parametrize(
    ('number', 'grid', 'region'),
    [(0.5, (14, 14), (7, 7)), (0.5, (7, 9), (3, 4)), (0.99, (7, 7), (6, 6)), (0.3, (7, 4), (2, 1))],
)
def test_ratio_rule_with_a_fixed_number(number, grid, region):
    assert draw_many(SMMix(side_ratio=number, region_rule='ratio'), grid, 20) == {region: 20}


@pytest.mark.parametrize('side', range(2, 65))
def test_ratio_rule_never_draws_nothing_or_everything(side):
    """At both ends of the range too, where floating point would round to 0 tokens or to the whole grid."""

    class End:
        def __init__(self, end):
            self.end = end

        def uniform(self, low, high):
            return (low, high)[self.end]

    method = SMMix(side_ratio=(0, 1), region_rule='ratio')
    assert method.draw_region((side, side), End(0)) == (1, 1)
    assert method.draw_region((side, side), End(1)) == (side - 1, side - 1)


@pytest.mark.parametrize(
    ('side_ratio', 'rule', 'grid'),
    [
        ((0.25, 0.75), 'integer', (1, 1)),
        ((0.25, 0.75), 'ratio', (1, 1)),
        ((0.25, 0.75), 'ratio', (1, 6)),
        (0.2, 'integer', (4, 4)),
        (0.2, 'ratio', (4, 4)),
        ((0.0, 0.2), 'ratio', (4, 4)),
    ],
)
def test_grids_that_leave_no_region_are_an_error(side_ratio, rule, grid):
    method = SMMix(side_ratio=side_ratio, region_rule=rule)
    with pytest.raises(ValueError, match=rf'side_ratio=.*{rule}.*{grid[0]} x {grid[1]}'):
        method.draw_region(grid, np.random.default_rng(0))


@pytest.mark.parametrize(
    'side_ratio',
    [
        0,
        1,
        -0.5,
        1.5,
        (0.75, 0.25),
        (-0.1, 0.5),
        (0.5, 1.1),
        (0.5,),
        (0.1, 0.2, 0.3),
        '05',
        None,
        (None, 0.75),
        (0, 0),
        (1, 1),
        float('nan'),
    ],
)
def test_side_ratio_outside_its_range_is_an_error(side_ratio):
    with pytest.raises(ValueError, match='side_ratio of SMMix'):
        SMMix(side_ratio=side_ratio)


@pytest.mark.parametrize(
    'setting', [dict(region_rule='paper'), dict(placement='random'), dict(region_head='none'), dict(consistency='kl')]
)
def test_unknown_choices_are_an_error(setting):
    ((name, value),) = setting.items()
    with pytest.raises(ValueError, match=f'{name} of SMMix.*{value}'):
        SMMix(**setting)


@pytest.mark.parametrize('weights', [dict(cls_weight=-1), dict(cls_weight=0, fine_weight=0, con_weight=0)])
def test_loss_weights_are_checked(weights):
    with pytest.raises(ValueError, match='weights of SMMixLoss'):
        SMMix(loss=weights)


def test_defaults_are_the_authors_code():
    method = BATCH_AUGMENTS.build(dict(type='smmix_mm.SMMix'))
    assert method.side_ratio == (0.25, 0.75)
    assert (method.region_rule, method.placement) == ('integer', 'max_min')
    assert (method.region_head, method.consistency) == ('separate', 'logits')
    assert (method.loss.cls_weight, method.loss.fine_weight, method.loss.con_weight) == (1, 1, 1)
    assert not list(method.parameters())


@pytest.mark.parametrize('batch', [1, 2, 5])
@pytest.mark.parametrize('consistency', ['logits', 'probabilities'])
def test_forward_on_a_motivation_made_by_hand(batch, consistency):
    """Images, mask, labels and expectation against loops; odd batches and a batch of one are no special case."""
    attention = torch.randint(0, 5, (batch, 4, 6)) / 8
    images, logits, labels = (
        torch.randn(batch, 3, 8, 18),
        3 * torch.randn(batch, 4),
        torch.eye(4)[torch.arange(batch) % 4],
    )
    before = images.clone()
    mixed = SMMix(side_ratio=0.5, consistency=consistency)(
        images, labels, answered(attention, logits), step_streams(0, 0)
    )

    share = 2 * 3 / 24
    expected_images, expected_mask = reference.max_min_mix(images, attention, (2, 3))
    assert torch.equal(mixed.images, expected_images)
    assert torch.equal(mixed.source_mask, expected_mask)
    torch.testing.assert_close(mixed.targets, reference.mix_pairs(labels, share))
    assert torch.equal(mixed.source_targets, torch.stack([labels[batch - 1 - b] for b in range(batch)]))
    assert torch.equal(mixed.target_targets, labels)
    torch.testing.assert_close(mixed.expected, reference.expected_probabilities(logits, share, consistency))
    assert torch.equal(images, before)


def test_the_two_expectations_differ():
    """Otherwise the test above could not tell them apart: equal mixing of (0, 0) and (0, log 9)."""
    logits, attention = torch.tensor([[0.0, 0.0], [0.0, np.log(9)]]), torch.rand(2, 2, 4)
    found = {}
    for consistency in ('logits', 'probabilities'):
        method = SMMix(side_ratio=(0.5, 0.5), consistency=consistency)
        mixed = method(torch.rand(2, 3, 4, 8), torch.eye(2), answered(attention, logits), step_streams(0, 0))
        found[consistency] = mixed.expected[0].tolist()
    # share 1/4 of the source: softmax(0, log(9) / 4) and (3/4)(1/2, 1/2) + (1/4)(1/10, 9/10)
    assert found['logits'] == pytest.approx([1 / (1 + 9**0.25), 9**0.25 / (1 + 9**0.25)])
    assert found['probabilities'] == pytest.approx([0.4, 0.6])


def test_cutmix_placement_takes_the_same_window_in_source_and_target():
    images = torch.arange(3 * 64.0).reshape(3, 1, 8, 8)
    method, starts = SMMix(side_ratio=0.5, placement='cutmix'), Counter()
    for step in range(900):
        mixed = method(images, torch.eye(3), answered(torch.zeros(3, 4, 4), torch.zeros(3, 3)), step_streams(0, step))
        row, col = mixed.source_mask[0].nonzero()[0].tolist()
        starts[row, col] += 1
        expected = images.clone()
        for target in range(3):
            window = (target, 0, slice(2 * row, 2 * row + 4), slice(2 * col, 2 * col + 4))
            expected[window] = images[(2 - target, *window[1:])]
        assert torch.equal(mixed.images, expected)
        assert mixed.source_mask.sum() == 3 * 4
    places = {(row, col): 1 / 9 for row in range(3) for col in range(3)}
    assert set(starts) == set(places)
    assert chi_square(starts, places, 900) < 26.1  # 99.9 % with 8 degrees of freedom


def test_region_size_is_shared_and_cutmix_window_is_local():
    """Ranks agree on the size of the region and not on where it is."""
    method, answers = SMMix(placement='cutmix'), answered(torch.zeros(2, 14, 14), torch.zeros(2, 3))
    places = []
    for step in range(10):
        masks = [
            method(torch.rand(2, 1, 14, 14), torch.eye(3)[:2], answers, step_streams(3, step, rank=rank)).source_mask[0]
            for rank in range(4)
        ]
        assert len({int(mask.sum()) for mask in masks}) == 1
        places.append(len({tuple(mask.nonzero()[0].tolist()) for mask in masks}))
    assert max(places) > 1


AS_PUBLISHED = Question(attention=True, logits=True)
CLASS_MAP = Question(class_map=True, by='teacher')


@pytest.mark.parametrize(
    ('settings', 'asked'),
    [
        (dict(), [AS_PUBLISHED]),
        (dict(motivation_autocast=False), [replace(AS_PUBLISHED, autocast=False)]),
        (dict(motivation_scale=0.5), [replace(AS_PUBLISHED, scale=0.5)]),
        (dict(motivated_by='teacher'), [replace(AS_PUBLISHED, by='teacher')]),
        (dict(motivated_by='model'), [replace(AS_PUBLISHED, by='model')]),
        (dict(label_reconstruction='transmix'), [AS_PUBLISHED]),
        (dict(label_reconstruction='tokenmix'), [AS_PUBLISHED, CLASS_MAP]),
        (dict(loss=dict(con_weight=0)), [Question(attention=True)]),
        (dict(placement='cutmix'), [Question(logits=True)]),
        (dict(placement='cutmix', loss=dict(con_weight=0)), [Question()]),
    ],
)
def test_only_what_is_needed_is_asked_for(settings, asked):
    """Weight 0 keeps no logits, CutMix's placement no attention."""
    method = SMMix(**settings)
    assert method.questions == tuple(asked)
    assert method.reads_class_attention == (settings.get('label_reconstruction') == 'transmix')
    logits = torch.rand(2, 3) if asked[0].logits else None
    answers = answered(torch.rand(2, 4, 4), logits, torch.rand(2, 4, 4) if len(asked) == 2 else None)
    mixed = method(torch.rand(2, 3, 8, 8), torch.eye(3)[:2], answers, step_streams(0, 0))
    assert (mixed.expected is not None) == asked[0].logits


@pytest.mark.parametrize('batch', [1, 2, 5])
def test_labels_reconstructed_by_transmix(batch):
    """The mean of the area's share and of the attention inside the region, image by image."""
    images, labels = torch.rand(batch, 3, 8, 12), torch.eye(7)[torch.arange(batch)]
    method = SMMix(side_ratio=0.5, label_reconstruction='transmix')
    mixed = method(images, labels, answered(torch.rand(batch, 4, 6), torch.rand(batch, 7)), step_streams(0, 0))
    by_area, seen = mixed.targets.clone(), torch.rand(batch, 4, 6)
    features = Features(feats=(), tokens=torch.empty(0), grid=(4, 6), class_attention=seen)
    found = method.relabel(features, mixed)
    for b in range(batch):
        inside = sum(seen[b, i, j] for i in range(4) for j in range(6) if mixed.source_mask[b, i, j])
        share = (2 * 3 / 24 + inside / seen[b].sum()) / 2
        torch.testing.assert_close(found[b], share * labels[batch - 1 - b] + (1 - share) * labels[b])
    torch.testing.assert_close(found.sum(1), torch.ones(batch))
    assert mixed.targets.equal(by_area)


@pytest.mark.parametrize('map_grid', [(4, 6), (2, 3)])
@pytest.mark.parametrize('batch', [1, 2, 5])
def test_labels_reconstructed_by_tokenmix(batch, map_grid):
    """The source's share is what its map holds where the region was cut, not where it was pasted."""
    images, labels = torch.rand(batch, 3, 8, 12), torch.eye(7)[torch.arange(batch)]
    attention, scores = torch.rand(batch, 4, 6), torch.randn(batch, *map_grid)
    method = SMMix(side_ratio=0.5, label_reconstruction='tokenmix', motivated_by='model')
    mixed = method(images, labels, answered(attention, torch.rand(batch, 7), scores), step_streams(0, 0))
    scores = scores.clamp(min=0) + 1e-8
    # Each coarse cell spreads to its four neighbours; where the grids agree nothing is resampled.
    if map_grid != (4, 6):
        flat = [reference.resize_bilinear(scores[b].reshape(-1, 1), map_grid, (4, 6)) for b in range(batch)]
        scores = torch.stack(flat).reshape(batch, 4, 6)
    content = scores
    content = content / content.sum((1, 2), keepdim=True)
    for b in range(batch):
        source = batch - 1 - b
        top, left = reference.best_window(attention[source].double().tolist(), (2, 3), largest=True)
        share = content[source, top : top + 2, left : left + 3].sum()
        rest = content[b][~mixed.source_mask[b]].sum()
        torch.testing.assert_close(mixed.targets[b], share * labels[source] + rest * labels[b])
    assert mixed.source_targets.equal(labels.flip(0)) and mixed.target_targets.equal(labels)


@pytest.mark.parametrize('region_head', ['separate', 'shared'])
def test_no_region_classifier_without_the_fine_grained_term(region_head):
    assert SMMix(region_head=region_head).region_head == region_head
    assert SMMix(region_head=region_head, loss=dict(fine_weight=0)).region_head is None


def squared_error(logits, targets):
    return (logits - targets).square().mean()


def loss_case():
    mask = torch.zeros(2, 2, 3, dtype=torch.bool)
    mask[0, 0, 1:], mask[1, :, 0] = True, True
    mixed = MixedBatch(
        images=torch.zeros(2, 3, 4, 6),
        targets=torch.rand(2, 4),
        source_mask=mask,
        source_targets=torch.eye(4)[:2],
        target_targets=torch.eye(4)[2:],
        expected=torch.randn(2, 4).softmax(1),
    )
    features = Features(feats=(), tokens=torch.randn(2, 6, 5), grid=(2, 3))
    return torch.randn(2, 4), features, mixed, torch.randn(5, 4)


def test_loss_weighs_three_terms_of_the_given_criterion():
    logits, features, mixed, weight = loss_case()
    losses = SMMixLoss(cls_weight=2, fine_weight=3, con_weight=5)(
        logits, features, mixed, squared_error, lambda tokens: tokens @ weight
    )
    inside, outside = reference.region_means(features.tokens, mixed.source_mask)
    fine = squared_error(inside @ weight, mixed.source_targets) + squared_error(outside @ weight, mixed.target_targets)
    expected = dict(
        loss_cls=2 * squared_error(logits, mixed.targets),
        loss_fine=3 * fine / 2,
        loss_con=5 * reference.consistency(logits, mixed.expected),
    )
    assert list(losses) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value)


@pytest.mark.parametrize('term', ['cls', 'fine', 'con'])
def test_a_term_of_weight_zero_is_not_computed(term):
    """What only that term would read may be missing."""
    logits, features, mixed, weight = loss_case()
    whole = SMMixLoss()(logits, features, mixed, squared_error, lambda tokens: tokens @ weight)
    classify_regions = lambda tokens: tokens @ weight  # noqa: E731
    if term == 'fine':
        features.tokens = mixed.source_mask = mixed.source_targets = mixed.target_targets = classify_regions = None
    if term == 'con':
        mixed.expected = None
    if term == 'cls':
        mixed.targets = None
    losses = SMMixLoss(**{f'{term}_weight': 0})(logits, features, mixed, squared_error, classify_regions)
    del whole[f'loss_{term}']
    assert losses == whole
