"""Finds images without label map, and label maps in which a class never occurs."""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from inspect import signature
from pathlib import Path

import numpy as np
from mmengine.fileio import list_from_file
from mmengine.logging import print_log
from PIL import Image

from .class_lists import find_class, find_label_map_counts, find_transforms, shorten
from .class_values import IGNORE_INDEX
from .image_folders import PICTURES, refuse_undecodable

LOOKED_AT = 20
# If a class is missing from those, which may be by chance, this many are read.
LOOKED_AT_IN_DOUBT = 500
# With more classes than this, one may well be missing from the label maps that are read.
FEW_CLASSES = 3


def check_label_maps(
    dataset: Mapping,
    folders: Mapping[str, Path],
    listing: Path | None,
    classes: tuple[str, ...] | None,
    loader: str,
    cfg: Mapping,
) -> None:
    """Checks the label maps of a dataset that finds them as mmseg's base class does.

    Args:
        dataset (Mapping): Its settings.
        folders (Mapping[str, Path]): Its folders, by use.
        listing (Path, optional): Its file of names.
        classes (tuple[str, ...], optional): Its classes, None if they are not known.
        loader (str): The dataloader that reads it.
        cfg (Mapping): The config.

    Raises:
        ValueError: If images have no label map, or a class never occurs in masks of few classes.
    """
    kind = find_class(dataset, 'mmseg')
    base = find_class(dict(type='BaseSegDataset'), 'mmseg')
    if not (kind and base and issubclass(kind, base) and kind.load_data_list is base.load_data_list):
        return
    if not {'img_path', 'seg_map_path'} <= folders.keys():
        return
    parameters = {**signature(base.__init__).parameters, **signature(kind.__init__).parameters}
    image_suffix, map_suffix, reduce_zero_label = (
        dataset.get(key, parameters[key].default) for key in ('img_suffix', 'seg_map_suffix', 'reduce_zero_label')
    )
    training = loader.startswith('train')
    loading = training or any(find_transforms(dataset.get('pipeline'), '', ('LoadLabelMap', 'LoadAnnotations')))
    listing = listing if listing and listing.is_file() else None
    paths = pair_files(
        folders['img_path'], folders['seg_map_path'], listing, (image_suffix, map_suffix), loader, loading
    )
    counts = [count for _, count in find_label_map_counts(cfg, loader)]
    count = len(classes) if classes else next(iter(counts), None)
    # Where every value is declared, an unknown one is refused when it is loaded.
    declared = any(step.get('values') for _, step in find_transforms(dataset.get('pipeline'), '', ('LoadLabelMap',)))
    if training and count and not declared:
        check_label_values(paths, count, classes, reduce_zero_label, kind.get_label_map(classes), loader)


def pair_files(
    images: Path, label_maps: Path, listing: Path | None, suffixes: tuple[str, str], loader: str, needed: bool
) -> list[Path]:
    """Matches images and label maps as mmseg does, and names those that it leaves out or does not find.

    Args:
        images (Path): Folder of images.
        label_maps (Path): Folder of label maps.
        listing (Path, optional): File with the names that are read; by default the whole folder is read.
        suffixes (tuple[str, str]): Suffixes of images and of label maps.
        loader (str): The dataloader that reads them.
        needed (bool): Whether the label maps are read; otherwise missing ones only cause a warning.

    Returns:
        list[Path]: The label maps that exist.

    Raises:
        ValueError: If images have no label map, or lines of the listing no image; it names the first ones.
    """
    image_suffix, map_suffix = suffixes
    maps = {name.removesuffix(map_suffix) for name in _list_files(label_maps) if name.endswith(map_suffix)}
    if listing:
        lines = list_from_file(listing)
        names = {line.strip() for line in lines}
        files = set(_list_files(images))
        stray = [
            f'line {number} {line!r}'
            for number, line in enumerate(lines, 1)
            if f'{line.strip()}{image_suffix}' not in files
        ]
        if stray:
            raise ValueError(
                f'{listing}, which {loader}.dataset reads, has {len(stray)} of {len(lines)} lines that name no image '
                f'<line>{image_suffix} in {images}: {shorten(stray)}. Every line has to be the name of an image '
                'without its suffix: correct or delete these lines'
            )
    else:
        files = list(_list_files(images))
        names = {name.removesuffix(image_suffix) for name in files if name.endswith(image_suffix)}
        # Label maps may be in the folder of the images.
        unread = [
            name
            for name in files
            if Path(name).suffix.lower() in PICTURES and not name.endswith((image_suffix, map_suffix))
        ]
        if unread:
            _warn(
                f'{len(unread)} pictures in {images}, which {loader}.dataset reads, are left out: '
                f'{shorten(sorted(unread), 5)}. Only files that end with img_suffix, {image_suffix!r}, are read '
                '(case-sensitive): rename or convert them, or set img_suffix'
            )
        surplus = [f'{name}{map_suffix}' for name in sorted(maps - names)] if label_maps != images else []
        if surplus:
            _warn(
                f'{len(surplus)} label maps in {label_maps}, which {loader}.dataset reads, have no image '
                f'<name>{image_suffix} in {images}, and are left out: {shorten(surplus, 5)}'
            )
    alone = [f'{name}{image_suffix}' for name in sorted(names - maps)]
    if alone:
        fault = (
            f'{len(alone)} of {len(names)} images in {images}, which {loader}.dataset reads, have no label map '
            f'<name>{map_suffix} in {label_maps}: {shorten(alone, 5)}'
        )
        if needed:
            raise ValueError(f'{fault}. Add the label maps, remove the images, or correct seg_map_suffix')
        _warn(fault)
    return [label_maps / f'{name}{map_suffix}' for name in sorted(names & maps)]


def check_label_values(
    paths: list[Path],
    count: int,
    names: tuple[str, ...] | None,
    reduce_zero_label: bool,
    changes: Mapping[int, int] | None,
    loader: str,
) -> None:
    """Refuses label maps in which a class never occurs but the ignored value does, as in masks of 0 and 255.

    Args:
        paths (list[Path]): The label maps; an evenly spaced sample of them is read.
        count (int): Number of classes.
        names (tuple[str, ...], optional): Their names.
        reduce_zero_label (bool): As in mmseg's datasets.
        changes (Mapping[int, int], optional): mmseg's ``label_map``, from old to new labels.
        loader (str): The dataloader that reads them.

    Raises:
        ValueError: If so; it names the values found and the classes that never occur.
    """
    labels = _number_values(reduce_zero_label, changes)
    for most in (LOOKED_AT, LOOKED_AT_IN_DOUBT):
        chosen = [paths[index] for index in np.linspace(0, len(paths) - 1, min(most, len(paths)), dtype=int)]
        found, looked_at = _look_at(chosen)
        values = np.flatnonzero(found).tolist()
        occurring = set(labels[values].tolist())
        absent = [label for label in range(count) if label not in occurring]
        few = count <= FEW_CLASSES or len(values) == 2
        if not (absent and IGNORE_INDEX in occurring and few):
            return
        if len(paths) <= most:
            break
    ignored = [value for value in values if labels[value] == IGNORE_INDEX]
    described = [f'{label} ({names[label]})' if names and label < len(names) else str(label) for label in absent]
    first = int(reduce_zero_label)
    one = len(absent) == 1
    raise ValueError(
        f'{looked_at} label maps were checked, such as {paths[0]}, which {loader}.dataset reads. They hold only the '
        f'values {_join(values)}, of which {_join(ignored)} {"is" if len(ignored) == 1 else "are"} ignored, so that '
        f'{"class" if one else "classes"} {shorten(described)} never occur{"s" if one else ""}. Write the classes as '
        f'the values {first} to {count - 1 + first} into the label maps'
        + (', or set reduce_zero_label=False' if reduce_zero_label and 0 in ignored else '')
    )


def _look_at(paths: Iterable[Path]) -> tuple[np.ndarray, int]:
    """Returns the values that occur, and the number of label maps read."""
    found, looked_at = np.zeros(IGNORE_INDEX + 1, dtype=bool), 0
    for path in paths:
        try:
            with Image.open(path) as image:
                values = np.asarray(image)
        except (OSError, SyntaxError, ValueError):
            # Loading it raises an error that names it.
            continue
        # Colour pictures are refused when they are loaded.
        if values.ndim == 2:
            found |= np.bincount(values.astype(np.uint8).ravel(), minlength=found.size) > 0
            looked_at += 1
    return found, looked_at


def _number_values(reduce_zero_label: bool, changes: Mapping[int, int] | None) -> np.ndarray:
    """The label of each value of a file."""
    values = np.arange(IGNORE_INDEX + 1)
    if reduce_zero_label:
        values = np.where((values == 0) | (values == IGNORE_INDEX), IGNORE_INDEX, values - 1)
    labels = values.copy()
    for old, new in (changes or {}).items():
        labels[values == old] = new
    return labels


def _list_files(folder: Path) -> Iterator[str]:
    """Lists files at any depth as mmengine does: relative paths, without hidden files."""
    for place, _, names in os.walk(folder, followlinks=True):
        within = Path(place).relative_to(folder)
        for name in names:
            if not name.startswith('.'):
                refuse_undecodable(Path(place, name))
                yield (within / name).as_posix()


def _join(values: list[int]) -> str:
    return ' and '.join(map(str, values)) if len(values) < 3 else shorten(values)


def _warn(message: str) -> None:
    print_log(message, logger='current', level=logging.WARNING)
