"""The classes of datasets, compared with those of the model and of other loaders."""

import importlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smmix_mm.registry import find_scope_and_name

# Settings that hold the number of classes, by the package of the dataset.
SETTINGS = {
    'mmpretrain': ('model.head', 'model.head.loss', 'model.data_preprocessor', 'data_preprocessor'),
    'mmdet': ('model.roi_head.bbox_head', 'model.roi_head.mask_head', 'model.bbox_head', 'model.mask_head'),
    'mmseg': ('model.decode_head', 'model.auxiliary_head'),
}


@dataclass(frozen=True)
class ClassList:
    """The classes of one dataset.

    Args:
        package (str): The package of the dataset, such as ``'mmdet'``.
        loader (str): The dataloader that reads it.
        source (str): The dataset, or a folder that it reads.
        names (tuple[str, ...]): Their names, in the order of the labels.
    """

    package: str
    loader: str
    source: str
    names: tuple[str, ...]


def is_path(setting: object) -> bool:
    """Whether a setting is a path on local disk."""
    return isinstance(setting, str) and '://' not in setting


def find_class(dataset: Mapping, package: str) -> type | None:
    """The class of a dataset of ``package``; None if the package is not installed or has none of that name."""
    kind = dataset['type']
    if not isinstance(kind, str):
        return kind if isinstance(kind, type) else None
    try:
        found = getattr(importlib.import_module(f'{package}.datasets'), kind.rpartition('.')[2], None)
    except ImportError:
        # Building the dataset raises the error.
        return None
    return found if isinstance(found, type) else None


def find_datasets(dataset: Mapping | None) -> Iterator[Mapping]:
    """Yields the settings of a dataset, or of those that it wraps."""
    if not dataset:
        return
    inner = dataset.get('dataset') or dataset.get('datasets')
    if inner is None:
        yield dataset
    else:
        for wrapped in inner if isinstance(inner, list | tuple) else [inner]:
            yield from find_datasets(wrapped)


def find_given_classes(dataset: Mapping, loader: str) -> tuple[str, ...] | None:
    """The classes that a config names.

    Args:
        dataset (Mapping): Settings of a dataset.
        loader (str): The dataloader that reads it.

    Raises:
        ValueError: If they are neither a list nor a file, such as ``('cat')`` without a comma.
    """
    for setting, holder in (('metainfo.classes', dataset.get('metainfo') or {}), ('classes', dataset)):
        classes = holder.get('classes')
        if classes is None:
            continue
        if not isinstance(classes, str):
            return tuple(classes)
        if not is_path(classes):
            return None
        path = Path(classes).expanduser()
        if not path.is_file():
            raise ValueError(
                f'{loader}.dataset.{setting} is {classes!r}, which is not a file; it has to be a list of names, or a '
                f'file with one name per line. Write a single class as ({classes!r},), with a comma'
            )
        return tuple(path.read_text(encoding='utf-8').splitlines())
    return None


def find_classes(dataset: Mapping, loader: str, package: str) -> tuple[str, ...] | None:
    """The classes that a config names, or those of the dataset's type; None if there are none."""
    given = find_given_classes(dataset, loader)
    if given is None:
        given = getattr(find_class(dataset, package), 'METAINFO', {}).get('classes')
    return None if given is None else tuple(given)


def check_same_classes(found: Iterable[ClassList]) -> None:
    """Refuses loaders whose metainfo names different classes, or the same ones in another order.

    Args:
        found (Iterable[ClassList]): Classes of the datasets of all loaders.

    Raises:
        ValueError: If classes differ; it names the settings and the differences.
    """
    first: dict[str, ClassList] = {}
    for classes in found:
        other = first.setdefault(classes.package, classes)
        if classes.names == other.names:
            continue
        lacking, extra = differ(classes.names, other.names)
        if lacking or extra:
            fault = f'lacks {lacking} and has {extra} in addition'
        else:
            fault = f'has the order {classes.names}, not {other.names}'
        raise ValueError(
            f'the classes of {classes.source} differ from those of {other.source}: the former {fault}. Labels are '
            'positions in these lists: set the same metainfo=dict(classes=(...)) in both'
        )


def differ(names: Iterable[str], others: Iterable[str]) -> tuple[list[str], list[str]]:
    """The names that are missing from ``names`` compared with ``others``, and those that are extra."""
    names, others = list(names), list(others)
    return [name for name in others if name not in names], [name for name in names if name not in others]


def check_class_counts(cfg: Mapping, classes: ClassList) -> None:
    """Refuses a model, or a ``LoadLabelMap``, for another number of classes than the dataset has.

    Args:
        cfg (Mapping): A config.
        classes (ClassList): Classes of one of its datasets.

    Raises:
        ValueError: If a setting does not fit; it lists all such settings, their values and the number of classes.
    """
    count = len(classes.names)
    found = [(setting, part['num_classes']) for setting, part in find_counts(cfg, classes.package)]
    if classes.package == 'mmseg':
        found += find_label_map_counts(cfg, classes.loader)
    wrong = [f'{setting} is {value}' for setting, value in found if value != count]
    if wrong:
        raise ValueError(
            f'{", ".join(wrong)}; but {classes.source} has {count} classes: '
            f'{shorten(classes.names)}. Set {"it" if len(wrong) == 1 else "them"} to {count}, or correct the classes'
        )


def find_label_map_counts(cfg: Mapping, loader: str) -> list[tuple[str, int]]:
    """``num_classes`` of every ``LoadLabelMap`` in the pipelines of a loader, with the setting's name."""
    dataset = (cfg.get(loader) or {}).get('dataset')
    return [
        (f'{path}.num_classes', transform['num_classes'])
        for path, transform in find_transforms(dataset, f'{loader}.dataset', ('LoadLabelMap',))
        if isinstance(transform.get('num_classes'), int)
    ]


def find_transforms(settings: Any, path: str, names: tuple[str, ...]) -> Iterator[tuple[str, Mapping]]:
    """Finds every part of a dataset's settings, at any depth, of one of these types, with the setting's name."""
    if isinstance(settings, Mapping):
        if find_scope_and_name(settings)[1] in names:
            yield path, settings
        items = settings.items()
    else:
        items = enumerate(settings) if isinstance(settings, list | tuple) else ()
    for key, value in items:
        yield from find_transforms(value, f'{path}.{key}', names)


def shorten(names: Iterable[str], most: int = 10) -> str:
    """Lists the first few names."""
    names = [str(name) for name in names]
    return ', '.join(names[:most]) + (f', ... ({len(names)} in all)' if len(names) > most else '')


def find_counts(cfg: Mapping, package: str) -> Iterator[tuple[str, Mapping]]:
    """The parts of a model that have a ``num_classes`` for the datasets of ``package``, with the setting's name."""
    # A preprocessor without a number takes that of the config's own preprocessor.
    for path in SETTINGS[package]:
        first, *steps = path.split('.')
        # mmengine's Config is not a Mapping, but its parts are.
        settings: Any = cfg.get(first)
        for step in steps:
            settings = settings.get(step) if isinstance(settings, Mapping) else None
        several = isinstance(settings, list | tuple)
        for index, part in enumerate(settings if several else [settings]):
            if isinstance(part, Mapping) and isinstance(part.get('num_classes'), int):
                yield f'{path}{f"[{index}]" if several else ""}.num_classes', part
