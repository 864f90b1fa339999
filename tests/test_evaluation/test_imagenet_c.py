"""The mean corruption error by hand."""

import pytest

from smmix_mm.evaluation import ALEXNET_ERRORS, mean_corruption_error


def test_alexnet_has_100_and_half_its_errors_50():
    accuracies = {name: [100 - error] * 5 for name, error in ALEXNET_ERRORS.items()}
    assert mean_corruption_error(accuracies) == pytest.approx(100)
    halved = {name: [100 - error / 2] * 5 for name, error in ALEXNET_ERRORS.items()}
    assert mean_corruption_error(halved) == pytest.approx(50)


def test_the_severities_of_a_corruption_count_together():
    accuracies = {name: [100.0] * 5 for name in ALEXNET_ERRORS}
    accuracies['brightness'] = [90.0, 80.0, 70.0, 60.0, 50.0]
    # The mean error of 30 over AlexNet's 56.4592, in one of 15 corruptions.
    assert mean_corruption_error(accuracies) == pytest.approx(100 * 30 / 56.4592 / 15)


def test_it_is_of_all_corruptions_and_severities():
    accuracies = {name: [50.0] * 5 for name in ALEXNET_ERRORS}
    wrong = {**accuracies, 'snow': [50.0] * 4, 'speckle_noise': [50.0] * 5}
    del wrong['fog']
    with pytest.raises(ValueError, match=r'these differ: fog, snow, speckle_noise$'):
        mean_corruption_error(wrong)
