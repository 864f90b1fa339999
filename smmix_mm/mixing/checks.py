"""What the settings of the methods have to be: errors that name the setting, the value found and what is needed."""

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, TypeVar

Choice = TypeVar('Choice')

# What :func:`check_number` needs most often.
POSITIVE = ('a positive number', lambda value: value > 0)
NOT_NEGATIVE = ('a number of at least 0', lambda value: value >= 0)


def check_number(method: str, name: str, value: Any, needed: str, fits: Callable[[float], bool]) -> float:
    """Checks a setting that is a number.

    Args:
        method (str): Whose setting it is.
        name (str): Its name.
        value (Any): What was found.
        needed (str): What the error says that it has to be.
        fits (Callable): Whether a finite number is that.

    Returns:
        float: The value.

    Raises:
        ValueError: If the value is no finite number that fits.
    """
    if not (isinstance(value, Real) and math.isfinite(value) and fits(value)):
        raise ValueError(f'{name} of {method} has to be {needed}, but got {value!r}')
    return float(value)


def check_whole_number(method: str, name: str, value: Any, least: int) -> int:
    """Checks a setting that is a whole number of at least ``least``; as :func:`check_number`."""
    if not (isinstance(value, Integral) and value >= least):
        raise ValueError(f'{name} of {method} has to be a whole number of at least {least}, but got {value!r}')
    return int(value)


def check_choice(method: str, name: str, value: Choice, choices: tuple[Choice, ...]) -> Choice:
    """Checks a setting that is one of several; as :func:`check_number`."""
    if value not in choices:
        raise ValueError(f'{name} of {method} has to be one of {choices}, but got {value!r}')
    return value


def check_grid(method: str, name: str, side: int, size: tuple[int, int]) -> tuple[int, int]:
    """Checks that squares fill the images.

    Args:
        method (str): Whose setting the side of a square is.
        name (str): Name of that setting.
        side (int): Its value, in pixels.
        size (tuple[int, int]): Height and width of the images in pixels.

    Returns:
        tuple[int, int]: Rows and columns of squares.

    Raises:
        ValueError: If the side of a square does not divide those of the images.
    """
    if size[0] % side or size[1] % side:
        raise ValueError(
            f'{name} of {method} has to divide the sides of the images, but got {side} for images of {size[0]} x '
            f'{size[1]} pixels'
        )
    return size[0] // side, size[1] // side
