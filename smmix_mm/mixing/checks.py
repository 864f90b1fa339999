"""Checks of the methods' settings. Errors name the setting, the value found and the value needed."""

import math
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any, TypeVar

Choice = TypeVar('Choice')

# The most common requirements for :func:`check_number`.
POSITIVE = ('a positive number', lambda value: value > 0)
NOT_NEGATIVE = ('a number of at least 0', lambda value: value >= 0)


def check_number(method: str, name: str, value: Any, needed: str, fits: Callable[[float], bool]) -> float:
    """Checks a setting that is a number.

    Args:
        method (str): Name of the method.
        name (str): Name of the setting.
        value (Any): Value found.
        needed (str): Description of the values needed, for the error message.
        fits (Callable): Returns whether a finite number is such a value.

    Returns:
        float: The value.

    Raises:
        ValueError: If the value is not a finite number that fits.
    """
    if not (isinstance(value, Real) and math.isfinite(value) and fits(value)):
        raise ValueError(f'{name} of {method} has to be {needed}, but got {value!r}')
    return float(value)


def check_whole_number(method: str, name: str, value: Any, least: int) -> int:
    """Checks a setting that is a whole number of at least ``least``, like :func:`check_number`."""
    if not (isinstance(value, Integral) and value >= least):
        raise ValueError(f'{name} of {method} has to be a whole number of at least {least}, but got {value!r}')
    return int(value)


def check_range(
    method: str, name: str, value: Any, needed: str, fits: Callable[[float, float], bool], whole: bool = False
) -> tuple[float, float]:
    """Checks a setting that is a pair of numbers in order, or one number for both.

    Args:
        method (str): Name of the method.
        name (str): Name of the setting.
        value (Any): Value found.
        needed (str): Description of the values needed, for the error message.
        fits (Callable): Returns whether a lower and a higher number are such values.
        whole (bool): Whether they have to be whole numbers. Defaults to False.

    Returns:
        tuple[float, float]: The pair; of ints if ``whole``.

    Raises:
        ValueError: If it is not such a pair.
    """
    kind, convert = (Integral, int) if whole else (Real, float)
    pair = (value, value) if isinstance(value, kind) else value
    if isinstance(pair, Sequence) and len(pair) == 2 and all(isinstance(number, kind) for number in pair):
        low, high = pair
        if low <= high and fits(low, high):
            return convert(low), convert(high)
    raise ValueError(f'{name} of {method} has to be {needed}, but got {value!r}')


def check_choice(method: str, name: str, value: Choice, choices: tuple[Choice, ...]) -> Choice:
    """Checks a setting that is one of several choices, like :func:`check_number`."""
    if value not in choices:
        raise ValueError(f'{name} of {method} has to be one of {choices}, but got {value!r}')
    return value


def check_grid(method: str, name: str, side: int, size: tuple[int, int]) -> tuple[int, int]:
    """Checks that squares of a given side tile the images.

    Args:
        method (str): Name of the method.
        name (str): Name of the setting for the side of a square.
        side (int): Its value, in pixels.
        size (tuple[int, int]): Height and width of the images in pixels.

    Returns:
        tuple[int, int]: Rows and columns of squares.

    Raises:
        ValueError: If the side of a square does not divide the sides of the images.
    """
    if size[0] % side or size[1] % side:
        raise ValueError(
            f'{name} of {method} has to divide the sides of the images, but got {side} for images of {size[0]} x '
            f'{size[1]} pixels'
        )
    return size[0] // side, size[1] // side
