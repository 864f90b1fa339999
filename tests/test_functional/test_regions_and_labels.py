import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmpretrain.models.losses import LabelSmoothLoss

from smmix_mm import functional

DATA = Path(__file__).parents[1] / 'data'
GOLDEN = {name: torch.as_tensor(value) for name, value in np.load(DATA / 'smmix_small.npz').items()}

many = settings(max_examples=80, deadline=None, derandomize=True)


@st.composite
def batches(draw):
    """Images, attention with exactly summable values and ties, and a region, from one token to the whole grid."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    batch = draw(st.integers(1, 5))
    grid = draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    patch = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    region = tuple(draw(st.integers(1, side)) for side in grid)
    channels = draw(st.integers(1, 3))
    dtype = draw(st.sampled_from([torch.uint8, torch.float16, torch.float32, torch.float64]))
    levels = draw(st.sampled_from([1, 2, 4, 256]))
    attention_dtype = draw(st.sampled_from([torch.float16, torch.float32, torch.float64]))

    shape = (batch, channels, grid[0] * patch[0], grid[1] * patch[1])
    images = torch.randint(0, 256, shape, generator=generator).to(dtype)
    if draw(st.booleans()):
        images = images.to(memory_format=torch.channels_last)
    attention = torch.randint(0, levels, (batch, *grid), generator=generator).to(attention_dtype) / 256
    return images, attention, region


@pytest.mark.parametrize('case', range(3))
def test_mixing_equals_the_authors_code_bit_for_bit(case):
    region = tuple(GOLDEN[f'region{case}'].tolist())
    mixed, source_mask = functional.max_min_mix(GOLDEN[f'images{case}'], GOLDEN[f'attention{case}'], region)
    assert mixed.dtype == torch.float16
    assert torch.equal(mixed, GOLDEN[f'mixed{case}'])
    assert torch.equal(source_mask, GOLDEN[f'source_mask{case}'])


def test_losses_equal_the_authors_code():
    share, classes = GOLDEN['source_share'].item(), GOLDEN['logits'].shape[1]
    one_hot = torch.eye(classes)[GOLDEN['labels']]
    criterion = LabelSmoothLoss(GOLDEN['label_smooth'].item(), num_classes=classes, mode='original')

    cls = criterion(GOLDEN['logits'], functional.mix_pairs(one_hot, share))
    fine = criterion(GOLDEN['source_region_logits'], one_hot.flip(0)) + criterion(
        GOLDEN['target_region_logits'], one_hot
    )
    expected = functional.mix_pairs(GOLDEN['unmixed_logits'], share).softmax(dim=1)
    con = functional.consistency_loss(GOLDEN['logits'], expected)

    for name, value in (('cls', cls), ('fine', fine / 2), ('con', con)):
        torch.testing.assert_close(value.double(), GOLDEN[f'loss_{name}'], rtol=1e-6, atol=0, msg=name)


@many
@given(batches())
def test_max_min_mix_equals_loops(batch):
    images, attention, region = batch
    mixed, source_mask = functional.max_min_mix(images, attention, region)
    expected, expected_mask = reference.max_min_mix(images, attention, region)
    assert mixed.dtype == images.dtype
    assert torch.equal(mixed, expected)
    assert torch.equal(source_mask, expected_mask)


@many
@given(batches())
def test_every_mixed_pixel_is_a_copy(batch):
    """Outside the mask the target's own pixel, inside one of the source's; the memory format stays."""
    images, attention, region = batch
    before = images.clone()
    mixed, source_mask = functional.max_min_mix(images, attention, region)

    patch = [side // size for side, size in zip(images.shape[2:], attention.shape[1:], strict=True)]
    pasted = source_mask.repeat_interleave(patch[0], 1).repeat_interleave(patch[1], 2)
    for target in range(len(images)):
        source = images[len(images) - 1 - target]
        kept, own = mixed[target][:, ~pasted[target]], images[target][:, ~pasted[target]]
        assert torch.equal(kept, own)
        pixels = {tuple(pixel) for pixel in source.flatten(1).T.tolist()}
        assert {tuple(pixel) for pixel in mixed[target][:, pasted[target]].T.tolist()} <= pixels

    assert (source_mask.flatten(1).sum(1) == region[0] * region[1]).all()
    assert torch.equal(images, before)
    assert mixed.stride() == images.stride()


@pytest.mark.parametrize('dtype', [torch.int64, torch.uint8, torch.bfloat16])
def test_max_min_mix_takes_any_dtype_of_attention(dtype):
    attention = torch.tensor([[[0, 1, 2], [3, 4, 5], [6, 7, 9]]], dtype=dtype)
    images = torch.arange(9.0).reshape(1, 1, 3, 3)
    mixed, _ = functional.max_min_mix(images, attention, (2, 2))
    assert mixed[0, 0].tolist() == [[4, 5, 2], [7, 8, 5], [6, 7, 8]]


def test_max_min_mix_moves_the_brightest_region_onto_the_darkest():
    """Two images of 4 x 4 tokens, 2 x 2 pixels each, whose answer can be seen."""
    attention = torch.ones(2, 4, 4)
    attention[0, 0:2, 2:4] = 5  # where image 0 is cut
    attention[0, 2:4, 0:2] = 0  # where image 0 is pasted over
    attention[1, 1:3, 1:3] = 5
    attention[1, 0:2, 0:2] -= torch.tensor([[1.0, 1.0], [1.0, 4.9]])
    images = torch.stack([torch.arange(64.0).reshape(1, 8, 8), 100 + torch.arange(64.0).reshape(1, 8, 8)])
    mixed, mask = functional.max_min_mix(images, attention, (2, 2))

    expected = images.clone()
    expected[0, :, 4:8, 0:4] = images[1, :, 2:6, 2:6]
    expected[1, :, 0:4, 0:4] = images[0, :, 0:4, 4:8]
    assert torch.equal(mixed, expected)
    assert mask[0].nonzero().tolist() == [[2, 0], [2, 1], [3, 0], [3, 1]]
    assert mask[1].nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]


def test_ties_go_to_the_first_window_in_row_major_order():
    scores = torch.zeros(1, 4, 4)
    assert functional.max_windows(scores, (2, 2)).tolist() == [[0, 0]]
    scores[0, 1, 3] = scores[0, 3, 1] = 1
    assert functional.max_windows(scores, (2, 2)).tolist() == [[0, 2]]
    assert functional.max_windows(-scores, (2, 2)).tolist() == [[0, 0]]
    assert functional.min_windows(-scores, (1, 2)).tolist() == [[1, 2]]


@pytest.mark.parametrize('region', [(3, 3), (1, 5), (4, 2), (14, 13)])
def test_windows_of_real_valued_scores_are_the_best_ones(region):
    """On softmax-like scores, against exactly rounded sums."""
    scores = torch.rand(5, 14, 14).mul(3).softmax(-1) / 14
    found = {True: functional.max_windows(scores, region), False: functional.min_windows(scores, region)}
    for image, rows in enumerate(scores.double().tolist()):
        for largest, corners in found.items():
            best = reference.window_sum(rows, *reference.best_window(rows, region, largest), region)
            assert reference.window_sum(rows, *corners[image].tolist(), region) == pytest.approx(best, rel=1e-6)


def test_window_sums_equal_loops():
    scores = torch.rand(2, 5, 7, dtype=torch.float64)
    sums = functional.window_sums(scores, (2, 3))
    assert sums.shape == (2, 4, 5)
    for image in range(2):
        for row in range(4):
            for col in range(5):
                expected = reference.window_sum(scores[image].tolist(), row, col, (2, 3))
                assert sums[image, row, col].item() == pytest.approx(expected, rel=1e-12)


def test_windows_of_equal_content_have_equal_sums_bit_for_bit():
    tile = torch.rand(1, 3, 3)
    sums = functional.window_sums(tile.repeat(1, 4, 4), (3, 3))
    assert torch.equal(sums[0, ::3, ::3], sums[0, 0, 0].expand(4, 4))


def test_half_precision_attention_is_summed_in_float32():
    """196 values near 1 lose their differences when they are added up in half precision."""
    scores = torch.ones(1, 15, 15, dtype=torch.float16)
    scores[0, 14, 14] = 1.001
    assert functional.max_windows(scores, (14, 14)).tolist() == [[1, 1]]


@pytest.mark.parametrize(
    ('images', 'attention', 'region', 'message'),
    [
        ((2, 3, 30, 32), (2, 4, 4), (2, 2), r'4 x 4.*30 x 32'),
        ((2, 3, 32, 30), (2, 4, 4), (2, 2), r'4 x 4.*32 x 30'),
        ((2, 3, 32, 32), (2, 4, 4), (0, 2), r'region .*\(4, 4\).*\(0, 2\)'),
        ((2, 3, 32, 32), (2, 4, 4), (2, 5), r'region .*\(4, 4\).*\(2, 5\)'),
        ((3, 3, 32, 32), (2, 4, 4), (2, 2), r'same B.*\(3, 3, 32, 32\).*\(2, 4, 4\)'),
        ((3, 32, 32), (3, 4, 4), (2, 2), r'\(B, C, H, W\).*\(3, 32, 32\)'),
        ((2, 3, 32, 32), (2, 16), (2, 2), r'\(B, h, w\).*\(2, 16\)'),
    ],
)
def test_max_min_mix_says_what_does_not_fit(images, attention, region, message):
    with pytest.raises(ValueError, match=message):
        functional.max_min_mix(torch.zeros(images), torch.zeros(attention), region)


def test_paste_windows_takes_each_sources_corner_in_the_source():
    images = torch.arange(3 * 16.0).reshape(3, 1, 4, 4)
    sources, targets = torch.tensor([[0, 1], [1, 1], [2, 0]]), torch.tensor([[1, 0], [0, 0], [2, 2]])
    mixed = functional.paste_windows(images, sources, targets, (2, 2), (4, 4))
    expected = images.clone()
    expected[0, 0, 1:3, 0:2] = images[2, 0, 0:2, 1:3]
    expected[1, 0, 0:2, 0:2] = images[1, 0, 1:3, 1:3]
    expected[2, 0, 2:4, 2:4] = images[0, 0, 2:4, 0:2]
    assert torch.equal(mixed, expected)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.uint8])
@pytest.mark.parametrize('patch', [1, 2, 4, 8, 12, 16])
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_paste_windows_copies_the_same_pixels_however_wide_a_patch_is(dtype, patch, memory_format):
    """Rows of a patch are copied as elements of 16 bytes where whole ones make them up."""
    images = torch.randint(0, 256, (3, 2, 3 * patch, 5 * patch)).to(dtype).to(memory_format=memory_format)
    attention = torch.rand(3, 3, 5)
    mixed, _ = functional.max_min_mix(images, attention, (2, 2))
    assert mixed.is_contiguous(memory_format=memory_format)
    assert torch.equal(mixed, reference.max_min_mix(images, attention, (2, 2))[0])


@pytest.mark.parametrize('batch_size', [1, 16, 17, 37])
def test_paste_windows_takes_batches_larger_than_what_is_cut_at_once(batch_size):
    images, attention = torch.rand(batch_size, 2, 8, 12), torch.rand(batch_size, 4, 6)
    mixed, _ = functional.max_min_mix(images, attention, (2, 3))
    assert torch.equal(mixed, reference.max_min_mix(images, attention, (2, 3))[0])


def test_paste_windows_reads_memory_that_begins_between_wide_elements():
    images = torch.from_numpy(np.random.default_rng(0).random(1 + 2 * 3 * 8 * 8, np.float32)[1:]).view(2, 3, 8, 8)
    attention = torch.rand(2, 2, 2)
    mixed, _ = functional.max_min_mix(images, attention, (1, 1))
    assert torch.equal(mixed, reference.max_min_mix(images, attention, (1, 1))[0])


def test_paste_windows_keeps_the_bits_of_what_is_no_number():
    images = torch.tensor([math.nan, -0.0, math.inf, -math.nan]).expand(2, 1, 4, 4).clone()
    corners = torch.zeros(2, 2, dtype=torch.int64)
    mixed = functional.paste_windows(images, corners, corners, (1, 1), (1, 1))
    assert torch.equal(mixed.view(torch.int32), images.flip(0).view(torch.int32))


def test_paste_windows_reads_views_with_gaps():
    """Images that are a crop of a larger tensor mix like a copy of them, and the larger tensor stays as it was."""
    larger = torch.rand(2, 3, 12, 12)
    before = larger.clone()
    crop, attention = larger[:, :, 2:10, 3:11], torch.rand(2, 4, 4)
    assert torch.equal(
        functional.max_min_mix(crop, attention, (2, 3))[0],
        functional.max_min_mix(crop.clone(), attention, (2, 3))[0],
    )
    assert torch.equal(larger, before)


def test_cutmix_windows_are_the_same_for_every_image():
    assert functional.cutmix_windows((3, 1), 2).tolist() == [[3, 1], [3, 1]]


def test_window_mask_is_true_inside_each_window():
    mask = functional.window_mask(torch.tensor([[0, 2], [2, 0]]), (1, 2), (3, 4))
    assert mask.dtype == torch.bool
    assert mask.int().tolist() == [
        [[0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]],
        [[0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0]],
    ]


def test_region_share_is_the_sources_part_of_the_area():
    assert functional.region_share((2, 3), (4, 6)) == 0.25
    assert functional.region_share((4, 6), (4, 6)) == 1


@pytest.mark.parametrize('share', [0.0, 9 / 49, 1.0])
def test_mix_pairs_gives_the_source_its_share(share):
    values = torch.rand(5, 3)
    torch.testing.assert_close(functional.mix_pairs(values, share), reference.mix_pairs(values, share))


def test_mix_pairs_takes_a_share_per_image():
    values, share = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[0.25], [0.9], [0.5]])
    assert functional.mix_pairs(values, share).flatten().tolist() == [0.25 * 4 + 0.75 * 1, 2, 0.5 * 1 + 0.5 * 4]


@pytest.mark.parametrize('num_extra_tokens', [0, 1, 2])
def test_image_attention_equals_loops(num_extra_tokens):
    query, key = (2 * torch.randn(2, 3, num_extra_tokens + 6, 4) for _ in range(2))
    expected = reference.image_attention(query, key, num_extra_tokens)
    found = functional.image_attention(query, key, num_extra_tokens)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=0)
    exact = functional.image_attention(query.double(), key.double(), num_extra_tokens)
    torch.testing.assert_close(exact, expected, rtol=1e-12, atol=0)


def test_image_attention_takes_a_scale():
    query, key = torch.randn(1, 2, 5, 4), torch.randn(1, 2, 5, 4)
    torch.testing.assert_close(
        functional.image_attention(query, key, 1, scale=1.5), functional.image_attention(3 * query, key, 1, scale=0.5)
    )


def test_image_attention_of_half_precision_is_normalised_in_float32():
    """Without extra tokens the scores of an image sum to one; averaged in half precision they would not."""
    query, key = torch.randn(2, 2, 49, 8).bfloat16(), torch.randn(2, 2, 49, 8).bfloat16()
    found = functional.image_attention(query, key)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.sum(1), torch.ones(2), rtol=1e-5, atol=0)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_region_means_equal_loops(dtype):
    tokens, mask = torch.randn(3, 12, 5, dtype=dtype), torch.rand(3, 3, 4) > 0.5
    mask[:, 0, 0], mask[:, 2, 3] = True, False
    for found, expected in zip(
        functional.region_means(tokens, mask), reference.region_means(tokens, mask), strict=True
    ):
        assert found.dtype == dtype
        torch.testing.assert_close(found, expected)


def test_region_means_carry_the_gradient_to_each_side():
    tokens, mask = torch.randn(1, 4, 1, requires_grad=True), torch.tensor([[[True, False], [False, False]]])
    source, target = functional.region_means(tokens, mask)
    (10 * source + target).sum().backward()
    torch.testing.assert_close(tokens.grad.flatten(), torch.tensor([10, 1 / 3, 1 / 3, 1 / 3]))


@pytest.mark.parametrize(('dtype', 'rtol'), [(torch.float32, 1e-5), (torch.bfloat16, 2**-8)])
def test_region_means_accumulate_in_float32_under_autocast(dtype, rtol):
    """And give the dtype of the tokens."""
    tokens, mask = (1 + torch.rand(2, 196, 8)).to(dtype), torch.zeros(2, 14, 14, dtype=torch.bool)
    mask[:, :3, :5] = True
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = functional.region_means(tokens, mask)
    for side, expected in zip(found, reference.region_means(tokens.double(), mask), strict=True):
        assert side.dtype == dtype
        torch.testing.assert_close(side.double(), expected, rtol=rtol, atol=0)


def test_consistency_loss_is_the_divergence_from_what_was_expected():
    logits, expected = torch.randn(4, 6), torch.randn(4, 6).softmax(1)
    expected[0] = torch.tensor([0, 0.5, 0, 0.25, 0.25, 0])
    torch.testing.assert_close(
        functional.consistency_loss(logits, expected), reference.consistency(logits, expected), rtol=1e-5, atol=0
    )


def test_consistency_loss_is_zero_where_both_agree_and_has_a_direction():
    probs = torch.tensor([[0.7, 0.2, 0.1]])
    assert functional.consistency_loss(probs.log(), probs).item() == pytest.approx(0, abs=1e-7)
    # KL((1, 0) || (3/4, 1/4)) = log(4/3); the other direction is infinite.
    loss = functional.consistency_loss(torch.tensor([[0.75, 0.25]]).log(), torch.tensor([[1.0, 0.0]]))
    assert loss.item() == pytest.approx(0.28768207)


def test_functional_imports_torch_and_nothing_else():
    """Also without any OpenMMLab package on the machine; compat tells versions of torch apart."""
    code = """
import sys
for name in ('mmengine', 'mmcv', 'mmpretrain', 'mmdet', 'mmseg'):
    sys.modules[name] = None  # import raises ImportError
import torch
before = set(sys.modules)
import smmix_mm.functional
print(*sorted(set(sys.modules) - before))
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    ours = [name.removeprefix('smmix_mm').split('.') for name in done.stdout.split() if name.startswith('smmix_mm')]
    assert len(ours) == len(done.stdout.split())
    assert {room for _, room, *_ in filter(lambda steps: len(steps) > 1, ours)} == {'functional', 'compat'}


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('region', [(1, 1), (2, 3), (4, 6)])
def test_deterministic_algorithms_mix_the_same(region, memory_format):
    """Their way of pasting writes to a view without overlap, whose memory is the batch's own."""
    images = torch.randn(5, 3, 16, 48).to(memory_format=memory_format)
    attention = torch.rand(5, 4, 6)
    expected = functional.max_min_mix(images, attention, region)
    torch.use_deterministic_algorithms(True)
    try:
        found = functional.max_min_mix(images, attention, region)
    finally:
        torch.use_deterministic_algorithms(False)
    assert found[0].equal(expected[0])
    assert found[1].equal(expected[1])
    assert found[0].is_contiguous(memory_format=memory_format)
