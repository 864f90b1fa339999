"""Types in configs, as names and, in Python-style configs, as classes."""

import pytest
from mmpretrain.datasets import ImageNet
from mmpretrain.datasets.transforms import auto_augment
from mmseg.evaluation import IoUMetric

from smmix_mm.datasets import RandAugment
from smmix_mm.registry import find_scope_and_name


@pytest.mark.parametrize(
    ('settings', 'found'),
    [
        (dict(type='mmseg.IoUMetric'), ('mmseg', 'IoUMetric')),
        (dict(type='ImageNet'), ('', 'ImageNet')),
        (dict(type=IoUMetric), ('mmseg', 'IoUMetric')),
        (dict(type=ImageNet), ('mmpretrain', 'ImageNet')),
        (dict(), ('', '')),
    ],
)
def test_package_and_name_of_a_type(settings, found):
    assert find_scope_and_name(settings) == found


def test_operations_may_be_classes():
    policies = [dict(type=auto_augment.Contrast, magnitude_range=(0, 0.9)), dict(type='mmpretrain.Invert')]
    augment = RandAugment(policies, num_policies=1, magnitude_level=9)
    assert [type(policy).__module__.split('.')[0] for policy in augment.transforms] == ['smmix_mm', 'mmpretrain']
