"""Fills the data's classes into a config, and tries to load the data before training."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import DATASETS, init_default_scope

from smmix_mm.registry import find_scope_and_name

from .class_lists import find_counts, find_datasets, find_given_classes, find_transforms, shorten
from .class_values import FILE, read_class_values
from .image_folders import find_class_folders, find_image_folder, has_class_folders, list_pictures

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
# File with the names of the classes of listed images, one per line, in the order of the labels.
NAMES = 'classes.txt'
# So many samples of each loader are loaded before training, evenly spaced.
MAX_LOADED = 1000


def read_config(path: str | Path, options: Mapping[str, Any] | None = None) -> Config:
    """Reads a config, overrides settings, and fills in what follows from the data.

    Args:
        path (str | Path): The file.
        options (Mapping[str, Any], optional): Settings as ``--cfg-options`` gives them. Defaults to None.

    Raises:
        FileNotFoundError, ValueError: As :func:`complete_own_data`.
    """
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(options or {})
    complete_own_data(cfg)
    return cfg


def complete_own_data(cfg: Config) -> None:
    """Fills in what follows from the data, in place, if the config says ``own_data = True``.

    - ``data_root`` of datasets that have none: the ``data_root`` at the top of the config.
    - ``classes`` in all datasets, and ``num_classes`` of the model, its data preprocessor and ``LoadLabelMap``. They
      are the classes that a dataset of the config names, or else those of the data: its class folders or
      ``classes.txt`` (mmpretrain), the categories of its annotation file (mmdet), or ``class_values.txt`` (mmseg).
    - ``values`` and ``ignored`` of ``LoadLabelMap``, from ``class_values.txt``.
    - Suffixes of images and masks that a dataset of mmseg sets to None: the commonest in its folder.
    - ``ann_file`` of ``CocoMetric`` that has none, and ``topk`` of ``Accuracy``, without what exceeds the classes.

    Training data is read for the classes, or, if it is not there, the other loaders' data.

    Args:
        cfg (Config): A config. Wrapped datasets are completed too.

    Raises:
        FileNotFoundError: If the data is not there; it names the file or folder.
        ValueError: If the config has no ``data_root``, the data says no classes, or they are fewer than the task needs.
    """
    if not cfg.get('own_data'):
        return
    found = [
        (loader, dataset) for loader in LOADERS for dataset in find_datasets((cfg.get(loader) or {}).get('dataset'))
    ]
    for _, dataset in found:
        if not dataset.get('data_root'):
            if not cfg.get('data_root'):
                raise ValueError('own_data=True needs data_root at the top of the config, but there is none')
            dataset.data_root = cfg.data_root
    packages = {find_scope_and_name(dataset)[0] or cfg.get('default_scope') for _, dataset in found}
    if len(packages) != 1 or not packages <= {'mmpretrain', 'mmdet', 'mmseg'}:
        raise ValueError(f'own_data=True needs datasets of one of mmpretrain, mmdet and mmseg, but got {packages}')
    (package,) = packages
    given = [names for loader, dataset in found if (names := find_given_classes(dataset, loader))]
    sources = [_find_source(dataset, package) for _, dataset in found]
    source = next((path for path in sources if path.exists()), sources[0])
    names = given[0] if given else _read_classes(source, package)
    # A detector tells objects of one class from the rest of the image.
    if len(names) < 2 and package != 'mmdet':
        raise ValueError(f'{source} says the classes {names}, but at least 2 are needed')
    print_log(f'{len(names)} classes: {shorten(names)}', logger='current')
    for loader, dataset in found:
        # Others that a dataset names are compared later, with all checks.
        if not find_given_classes(dataset, loader):
            dataset.metainfo = {**(dataset.get('metainfo') or {}), 'classes': names}
        if package == 'mmseg':
            _complete_masks(dataset, names, source)
    for _, part in find_counts(cfg, package):
        part['num_classes'] = len(names)
    for kind in ('val', 'test'):
        dataset = next(find_datasets((cfg.get(f'{kind}_dataloader') or {}).get('dataset')), {})
        evaluators = cfg.get(f'{kind}_evaluator') or []
        for evaluator in evaluators if isinstance(evaluators, list) else [evaluators]:
            _complete_evaluator(evaluator, dataset, len(names))


def check_own_data(cfg: Config, loaders: Iterable[str]) -> None:
    """Loads samples before training, if the config says ``own_data = True``.

    Of each dataset up to :data:`MAX_LOADED` evenly spaced samples are loaded by the first steps of its pipeline, those
    whose types begin with ``Load``: images, boxes, outlines and masks.

    Args:
        cfg (Config): A config, completed by :func:`complete_own_data`. Its ``default_scope`` becomes the current one.
        loaders (Iterable[str]): The dataloaders to check.

    Raises:
        ValueError: If samples cannot be loaded; it names the loader, the number of such samples and the first ten.
    """
    if not cfg.get('own_data'):
        return
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    for loader in loaders:
        for settings in find_datasets((cfg.get(loader) or {}).get('dataset')):
            steps = [step for step in settings.pipeline if find_scope_and_name(step)[1].startswith('Load')]
            dataset = DATASETS.build({**settings, 'pipeline': steps})
            chosen = np.linspace(0, len(dataset) - 1, min(len(dataset), MAX_LOADED), dtype=int).tolist()
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                faults = [fault for fault in pool.map(lambda index, data=dataset: _try(data, index), chosen) if fault]
            if faults:
                listed = '\n  '.join(faults[:10])
                raise ValueError(
                    f'{len(faults)} of {len(chosen)} samples that were tried of {loader}.dataset cannot be loaded. '
                    f'Correct or remove them; the first are\n  {listed}'
                )


def _try(dataset: Any, index: int) -> str | None:
    try:
        dataset.pipeline(dataset.get_data_info(index))
    except (OSError, ValueError) as error:
        return str(error)
    return None


def _find_source(dataset: Mapping, package: str) -> Path:
    """The file, or folder of class folders, that says the classes."""
    root = Path(dataset['data_root'])
    if package == 'mmpretrain':
        return find_image_folder(dataset) if has_class_folders(dataset) else root / NAMES
    return root / (dataset['ann_file'] if package == 'mmdet' else FILE)


def _read_classes(source: Path, package: str) -> tuple[str, ...]:
    if package == 'mmseg':
        return read_class_values(source).names
    if not source.exists():
        if source.name == NAMES and source.parent.is_dir():
            remedy = (
                f'write it by tools/dataset_converters/own_folders.py --data-root {source.parent} --split 0.2, or set '
                'data_root'
            )
        else:
            remedy = 'set data_root, or in our configs for own data the variable DATA_ROOT'
        raise FileNotFoundError(f'{source}, which says the classes of the data, does not exist: {remedy}')
    if source.is_dir():
        return find_class_folders(source)
    if package == 'mmdet':
        try:
            names = [category['name'] for category in json.loads(source.read_bytes())['categories']]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f'{source} is not a COCO file with categories that have a name: {error!r}') from error
    else:
        names = [line.strip() for line in source.read_text(encoding='utf-8').splitlines() if line.strip()]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated or not names:
        raise ValueError(f'{source} {f"repeats the classes {shorten(repeated)}" if repeated else "names no classes"}')
    return tuple(names)


def _complete_masks(dataset: Mapping, names: tuple[str, ...], source: Path) -> None:
    for setting, use, default in (('img_suffix', 'img_path', '.jpg'), ('seg_map_suffix', 'seg_map_path', '.png')):
        # None asks for the suffix; a setting that is missing has mmseg's default.
        if dataset.get(setting, default) is None:
            dataset[setting] = _find_suffix(Path(dataset['data_root'], dataset['data_prefix'].get(use, ''))) or default
    for _, step in find_transforms(dataset.get('pipeline'), '', ('LoadLabelMap',)):
        step['num_classes'] = len(names)
        if step.get('values') is None:
            known = read_class_values(source)
            values = dict(zip(known.names, known.values, strict=True))
            unknown = [name for name in names if name not in values]
            if unknown:
                raise ValueError(f'metainfo.classes names {shorten(unknown)}, of which {source} says no value')
            step['values'] = [values.pop(name) for name in names]
            # Classes that the config does not name are ignored.
            step['ignored'] = [*known.ignored, *values.values()]


def _find_suffix(folder: Path) -> str | None:
    """The commonest suffix of the pictures in a folder."""
    counts = Counter(path.suffix for path in list_pictures(folder))
    return max(counts, key=counts.get, default=None)


def _complete_evaluator(evaluator: Mapping, dataset: Mapping, count: int) -> None:
    name = find_scope_and_name(evaluator)[1]
    if name == 'CocoMetric' and not evaluator.get('ann_file'):
        evaluator['ann_file'] = str(Path(dataset['data_root'], dataset['ann_file']))
    if name == 'Accuracy' and evaluator.get('topk'):
        topk = evaluator['topk']
        evaluator['topk'] = tuple(k for k in ([topk] if isinstance(topk, int) else topk) if k <= count) or (1,)
