"""Finds lines of an ``ann_file`` of classification that mmpretrain would stumble over, or count wrongly."""

import unicodedata
from collections.abc import Mapping
from pathlib import Path

from mmengine.fileio import list_from_file

from .class_lists import shorten


def check_image_list(listing: Path, folder: Path, dataset: Mapping, count: int | None, loader: str) -> None:
    """Checks the lines of a list, ``<path> <label>``, or ``<path>`` where ``with_label=False``.

    Args:
        listing (Path): The list.
        folder (Path): Folder of the images.
        dataset (Mapping): Settings of the dataset that reads it.
        count (int, optional): Number of classes, None if it is not known.
        loader (str): Its dataloader.

    Raises:
        ValueError: If the list is empty or not text in UTF-8, a line is blank, has no label or one beyond the classes,
            names no file, or gives an image another label. The first ten such lines are named, and the number of all.
    """
    where = f'{listing}, which {loader}.dataset reads,'
    labelled = dataset.get('with_label', True)
    try:
        lines = list_from_file(listing)
    except UnicodeDecodeError as error:
        raise ValueError(f'{where} is not text in UTF-8: {error}') from error
    if not lines:
        raise ValueError(f'{where} is empty')
    known: dict[str, str] = {}
    faults = []
    for number, line in enumerate(lines, 1):
        path, _, label = line.strip().rpartition(' ') if labelled else (line, '', '')
        fault = None
        if not line.strip():
            fault = 'is blank'
        elif labelled and not (path and label.isdecimal() and (count is None or int(label) < count)):
            limit = f' from 0 to {count - 1}' if count else ''
            fault = f'{line!r} does not end with a label{limit}'
        elif not (folder / path).is_file():
            fault = f'names {path!r}, which is not a file in {folder}{_find_other_form(folder / path)}'
        elif known.setdefault(path, label) != label:
            fault = f'gives {path!r} the label {label}, but another line gives it {known[path]}'
        if fault:
            faults.append(f'line {number} {fault}')
    if faults:
        form = '<path> <label>' if labelled else '<path>'
        raise ValueError(
            f'{where} has {len(faults)} of {len(lines)} lines that cannot be used; every line has to be {form}: '
            f'{shorten(faults)}'
        )


def _find_other_form(path: Path) -> str:
    """Unicode writes some letters in two ways, of which file systems and editors may choose different ones."""
    for form in ('NFC', 'NFD'):
        if path.with_name(unicodedata.normalize(form, path.name)).is_file():
            return f' (there is one whose name is written in the Unicode form {form}: rename it or convert the list)'
    return ''
