import pytest
import torch
import torch.nn.functional as F
from mmseg.models.losses import CrossEntropyLoss

from smmix_mm.losses import ClassWeightedCrossEntropy

WEIGHTS = [0.2, 1.0, 3.0]


@pytest.fixture
def pixels():
    return torch.randn(2, 3, 4, 5, requires_grad=True), torch.randint(0, 3, (2, 4, 5))


@pytest.mark.parametrize('weighted', [False, True])
def test_it_is_the_loss_of_mmseg(pixels, weighted):
    weight = torch.rand(2, 4, 5) if weighted else None
    expected = CrossEntropyLoss(class_weight=WEIGHTS)(*pixels, weight=weight, ignore_index=255)
    torch.testing.assert_close(ClassWeightedCrossEntropy(WEIGHTS)(*pixels, weight, ignore_index=255), expected)


def test_ignored_pixels_do_not_count(pixels):
    logits, labels = pixels
    labels[:, 1:3, 2:] = 255
    found = ClassWeightedCrossEntropy(WEIGHTS)(logits, labels, ignore_index=255)
    expected = F.cross_entropy(logits, labels, torch.tensor(WEIGHTS), ignore_index=255)
    torch.testing.assert_close(found, expected)
    found.backward()
    assert not logits.grad[:, :, 1:3, 2:].any()


def test_pictures_without_a_pixel_that_counts_give_nothing(pixels):
    logits, labels = pixels
    loss = ClassWeightedCrossEntropy(WEIGHTS)(logits, torch.full_like(labels, 255), ignore_index=255)
    loss.backward()
    assert loss == 0
    assert not logits.grad.any()


@pytest.mark.parametrize('weights', [[], [0.0, 0.0], [1.0, -1.0]])
def test_weights_are_checked(weights):
    with pytest.raises(ValueError, match='class_weight has to be at least 0 and not all 0, but got'):
        ClassWeightedCrossEntropy(weights)
