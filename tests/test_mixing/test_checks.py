from fractions import Fraction

import numpy as np
import pytest

from smmix_mm.mixing.checks import NOT_NEGATIVE, POSITIVE, check_choice, check_grid, check_number, check_whole_number


@pytest.mark.parametrize('value', [2, 0.5, np.float32(0.5), Fraction(1, 2)])
def test_numbers_are_returned_as_floats(value):
    for needed in (POSITIVE, NOT_NEGATIVE):
        found = check_number('Method', 'alpha', value, *needed)
        assert type(found) is float
        assert found == value


@pytest.mark.parametrize('value', [-1, float('inf'), -float('inf'), float('nan'), '1', None, [1], 1j])
def test_other_numbers_are_refused_by_name(value):
    with pytest.raises(ValueError, match=r'^alpha of Method has to be a positive number, but got .*'):
        check_number('Method', 'alpha', value, *POSITIVE)
    with pytest.raises(ValueError, match=r'^alpha of Method has to be a number of at least 0, but got .*'):
        check_number('Method', 'alpha', value, *NOT_NEGATIVE)


def test_zero_is_not_positive():
    assert check_number('Method', 'alpha', 0, *NOT_NEGATIVE) == 0
    with pytest.raises(ValueError, match='but got 0'):
        check_number('Method', 'alpha', 0, *POSITIVE)


def test_a_range_of_ones_own():
    inside = 'a number in (0, 1]', lambda value: 0 < value <= 1
    assert check_number('Method', 'share', 1, *inside) == 1
    with pytest.raises(ValueError, match=r'^share of Method has to be a number in \(0, 1\], but got 1.5$'):
        check_number('Method', 'share', 1.5, *inside)


@pytest.mark.parametrize('value', [3, np.int64(3)])
def test_whole_numbers_are_returned_as_ints(value):
    found = check_whole_number('Method', 'cells', value, least=3)
    assert type(found) is int
    assert found == 3


@pytest.mark.parametrize('value', [2, -1, 3.0, '3', None, (3,), float('nan')])
def test_other_whole_numbers_are_refused_by_name(value):
    with pytest.raises(ValueError, match=r'^cells of Method has to be a whole number of at least 3, but got .*'):
        check_whole_number('Method', 'cells', value, least=3)


def test_one_of_several():
    assert check_choice('Method', 'by', None, (None, 'model')) is None
    with pytest.raises(ValueError, match=r"^by of Method has to be one of \(None, 'model'\), but got 'teacher'$"):
        check_choice('Method', 'by', 'teacher', (None, 'model'))


def test_squares_fill_the_images():
    assert check_grid('Method', 'side', 8, (16, 32)) == (2, 4)
    for size in ((16, 20), (20, 16)):
        with pytest.raises(ValueError, match=rf'^side of Method .* got 8 for images of {size[0]} x {size[1]} pixels$'):
            check_grid('Method', 'side', 8, size)
