"""Top-1 and top-2 of mixed images, by hand."""

import pytest
import torch

from smmix_mm.evaluation import pair_hits

CASES = {
    # Logits of four classes, soft label, and whether top-1, top-2 and the pair count.
    'both found': ([1.0, 5.0, 4.0, 0.0], [0.0, 0.3, 0.7, 0.0], (True, True, True)),
    'order does not matter': ([1.0, 4.0, 5.0, 0.0], [0.0, 0.3, 0.7, 0.0], (True, True, True)),
    'the best alone': ([4.0, 5.0, 3.0, 0.0], [0.0, 0.3, 0.7, 0.0], (True, False, True)),
    'only the second best': ([5.0, 4.0, 3.0, 0.0], [0.0, 0.3, 0.7, 0.0], (False, False, True)),
    'none': ([5.0, 1.0, 2.0, 4.0], [0.0, 0.3, 0.7, 0.0], (False, False, True)),
    'negative logits': ([-9.0, -2.0, -1.0, -8.0], [0.0, 0.3, 0.7, 0.0], (True, True, True)),
    'one class': ([1.0, 5.0, 4.0, 0.0], [0.0, 1.0, 0.0, 0.0], (False, False, False)),
    # TokenMix's smoothing may put the label of a class whose content is hidden below zero.
    'a share below zero': ([5.0, 1.0, 4.0, 0.0], [0.9, 0.0, -0.05, 0.0], (True, True, True)),
    'a tiny share': ([5.0, 1.0, 4.0, 0.0], [1.0, 0.0, 1e-8, 0.0], (True, True, True)),
}


@pytest.mark.parametrize(('logits', 'target', 'expected'), CASES.values(), ids=CASES)
def test_hits_of_one_image(logits, target, expected):
    found = pair_hits(torch.tensor([logits]), torch.tensor([target]))
    assert tuple(hit.item() for hit in found) == expected


def test_hits_of_a_batch_are_those_of_its_images():
    logits = torch.tensor([case[0] for case in CASES.values()])
    targets = torch.tensor([case[1] for case in CASES.values()])
    found = torch.stack(pair_hits(logits, targets), dim=1)
    assert found.tolist() == [list(case[2]) for case in CASES.values()]
