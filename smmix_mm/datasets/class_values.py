"""The values or colours that stand for the classes in masks of one's own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

FILE = 'class_values.txt'
# The name of values that are no class.
IGNORED = 'ignored'
# mmseg's value, in label maps and losses alike.
IGNORE_INDEX = 255
FORMAT = (
    f"every line has to be '<value> <name>' or '<red> <green> <blue> <name>', such as '0 road' or '128 64 128 road'; "
    f'the name {IGNORED!r} marks values that are no class'
)
Value = int | tuple[int, int, int]


@dataclass(frozen=True)
class ClassValues:
    """The classes of masks.

    Args:
        names (tuple[str, ...]): Their names, in the order of the labels.
        values (tuple[Value, ...]): The value of each class, an integer or a colour (red, green, blue).
        ignored (tuple[Value, ...]): Values of pixels that belong to no class.
    """

    names: tuple[str, ...]
    values: tuple[Value, ...]
    ignored: tuple[Value, ...]


def read_class_values(path: str | Path) -> ClassValues:
    """Reads a file of lines such as ``0 road``, ``128 64 128 road`` or ``11 ignored``. Blank lines are skipped.

    Raises:
        FileNotFoundError: If it does not exist.
        ValueError: If a line has another form, a value or name is repeated, values and colours are mixed, or fewer
            than 2 or more than 255 classes are named.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f'{path}, which names the classes of the masks, does not exist: {FORMAT}. '
            'tools/dataset_converters/own_masks.py --write-values writes one from the masks'
        )
    found: dict[Value, str] = {}
    for number, line in enumerate(path.read_text(encoding='utf-8').splitlines(), 1):
        if not line.strip():
            continue
        words = line.split()
        length = 3 if len(words) > 3 and all(word.isdecimal() for word in words[:3]) else 1
        name = ' '.join(words[length:])
        if not (words[0].isdecimal() and name):
            raise ValueError(f'line {number} of {path} is {line!r}, but {FORMAT}')
        value = tuple(map(int, words[:3])) if length == 3 else int(words[0])
        if value in found or (name != IGNORED and name in found.values()):
            raise ValueError(f'line {number} of {path} repeats the value {value} or the name {name!r}: {FORMAT}')
        found[value] = name
    classes = {value: name for value, name in found.items() if name != IGNORED}
    if len({isinstance(value, tuple) for value in found}) > 1:
        raise ValueError(f'{path} mixes single values and colours: {FORMAT}')
    if not 2 <= len(classes) <= IGNORE_INDEX:
        raise ValueError(
            f'{path} names {len(classes)} classes, but segmentation needs 2 to {IGNORE_INDEX}. Background is a class '
            f'too, unless its value is {IGNORED!r}'
        )
    ignored = tuple(value for value, name in found.items() if name == IGNORED)
    return ClassValues(tuple(classes.values()), tuple(classes), ignored)


def read_mask(file: Path | IO[bytes], colours: bool) -> np.ndarray:
    """Reads the values of a mask of any mode.

    Args:
        file (Path | IO[bytes]): The mask.
        colours (bool): Whether colours stand for the classes. Otherwise a palette is read by index, and a picture of
            three equal channels by one of them.

    Returns:
        np.ndarray: ``(H, W)`` integers; colours as one number each, see :func:`pack`.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is in colour, but single values are needed.
    """
    with Image.open(file) as image:
        values = np.asarray(image.convert('RGB') if colours else image)
    if not colours and values.ndim == 3:
        # The last of two or four channels is alpha.
        values = values[..., : {2: 1, 4: 3}.get(values.shape[2])]
        if not (values == values[..., :1]).all():
            raise ValueError('it is in colour, but single values stand for the classes')
        values = values[..., 0]
    return pack(values, colours)


def pack(values: Sequence[Value] | np.ndarray, colours: bool) -> np.ndarray:
    """Turns colours ``(..., 3)`` into one number each; single values stay as they are. Both become int64."""
    values = np.asarray(values, dtype=np.int64)
    return values.reshape(*values.shape[:-1], 3) @ (1 << 16, 1 << 8, 1) if colours and values.size else values


def unpack(value: int, colours: bool) -> Value:
    """The inverse of :func:`pack` for one number."""
    return (value >> 16, value >> 8 & 255, value & 255) if colours else value


def number_values(mask: np.ndarray, values: np.ndarray, ignored: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Replaces the values of a mask by labels.

    Args:
        mask (np.ndarray): ``(H, W)`` integers.
        values (np.ndarray): The value of each class.
        ignored (np.ndarray): Values that become 255.

    Returns:
        tuple[np.ndarray, list[int]]: The labels, ``(H, W)`` uint8, and the values that are neither; these become 255.
    """
    known = np.concatenate([values, ignored]).astype(np.int64)
    labels = np.concatenate([np.arange(len(values)), np.full(len(ignored), IGNORE_INDEX)]).astype(np.uint8)
    order = np.argsort(known)
    positions = order[np.searchsorted(known[order], mask).clip(max=len(known) - 1)]
    strange = known[positions] != mask
    return np.where(strange, np.uint8(IGNORE_INDEX), labels[positions]), np.unique(mask[strange]).tolist()
