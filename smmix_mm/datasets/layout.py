"""Checks before training starts that the data exists and fits the model."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from smmix_mm.registry import find_scope_and_name

from .class_lists import (
    ClassList,
    check_class_counts,
    check_same_classes,
    find_classes,
    find_counts,
    find_datasets,
    find_given_classes,
    is_path,
)
from .coco_files import find_coco_fault, find_empty_part
from .image_folders import (
    check_class_folders,
    check_given_classes,
    check_same_folders,
    find_class_folders,
    find_image_folder,
    has_class_folders,
    list_class_folders,
)
from .label_maps import check_label_maps
from .list_files import check_image_list

IMAGE_FOLDER = """{root}/
  {folder}/<class>/<image>"""

COCO = """{root}/
  annotations/instances_{{train,val}}2017.json
  train2017/<image>
  val2017/<image>"""

ADE20K = """{root}/
  images/{{training,validation}}/<name>.jpg
  annotations/{{training,validation}}/<name>.png"""

# Datasets of other packages may generate or download their files.
SCOPES = ('', 'mmpretrain', 'mmdet', 'mmseg')
# Larger annotation files are not parsed: it takes long, and they are read again right after.
MAX_PARSED_BYTES = 10_000_000
TRAINING = 'train_dataloader'


def check_data_layout(cfg: Mapping, loaders: Iterable[str]) -> None:
    """Checks the data that the datasets of a config read from local disk, and its classes against the model's.

    Image folders of mmpretrain, and the datasets of mmpretrain, mmdet and mmseg that have several folders
    (``data_prefix=dict(...)``), are checked. An empty dataset is refused too: endless samplers hang on it. So is data
    that would silently be trained on wrongly: class folders that differ between the splits, COCO files of other
    classes, images without label map, a head for another number of classes. Files that are left out cause warnings.

    Args:
        cfg (Mapping): A config.
        loaders (Iterable[str]): The dataloaders to check, such as ``'train_dataloader'``.

    Raises:
        FileNotFoundError: If a path is missing or a folder empty; it names the path and the expected layout.
        ValueError: If data does not fit; it names the loader, the setting, file or folder, the value found and the one
            needed.
    """
    loaders = tuple(loaders)
    found: list[tuple[Mapping, ClassList]] = []
    listed: list[ClassList] = []
    for loader in loaders:
        for dataset in find_datasets((cfg.get(loader) or {}).get('dataset')):
            scope, name = find_scope_and_name(dataset)
            classes = None
            if name in ('ImageNet', 'CustomDataset'):
                folder = _check_image_folder(dataset, loader)
                if folder and scope in ('', 'mmpretrain'):
                    classes = check_class_folders(folder, dataset, loader)
                elif scope in ('', 'mmpretrain'):
                    listed += _check_list(dataset, loader, cfg)
            elif scope in SCOPES and isinstance(dataset.get('data_prefix'), Mapping) and _is_local(dataset):
                classes = _check_folders(dataset, name, loader, cfg)
            if classes:
                found.append((dataset, classes))
    folders = [(dataset, classes) for dataset, classes in found if classes.package == 'mmpretrain']
    training = _find_training_folders(cfg) if folders and TRAINING not in loaders else []
    check_same_folders([*training, *(classes for _, classes in folders)])
    check_same_classes([*(classes for _, classes in found if classes.package != 'mmpretrain'), *listed])
    for dataset, classes in folders:
        check_given_classes(classes, dataset)
    for classes in [*(classes for _, classes in found), *listed]:
        check_class_counts(cfg, classes)


def _find_training_folders(cfg: Mapping) -> list[ClassList]:
    """The class folders of the training loader, if they exist, when that loader itself is not checked."""
    found = []
    for dataset in find_datasets((cfg.get(TRAINING) or {}).get('dataset')):
        folder = find_image_folder(dataset) if has_class_folders(dataset) else None
        if folder and folder.is_dir():
            found.append(list_class_folders(folder, TRAINING))
    return found


def _check_image_folder(dataset: Mapping, loader: str) -> Path | None:
    """Checks an image folder, and returns it if its sub-folders are the classes."""
    folder = find_image_folder(dataset)
    if folder is None:
        return None
    classes_needed = has_class_folders(dataset)
    if not folder.is_dir() or (classes_needed and not find_class_folders(folder)):
        state = 'holds no class folders' if folder.is_dir() else 'does not exist'
        root = dataset.get('data_root') or ''
        prefix = os.path.relpath(folder, root or '.')
        raise FileNotFoundError(_describe(folder, state, loader, IMAGE_FOLDER.format(root=root, folder=prefix)))
    return folder if classes_needed else None


def _check_list(dataset: Mapping, loader: str, cfg: Mapping) -> list[ClassList]:
    """Checks the list of images that a dataset reads, and returns its classes if they are known."""
    folder, name = find_image_folder(dataset), dataset.get('ann_file')
    if folder is None or not name or not is_path(name):
        return []
    listing = Path(dataset.get('data_root') or '', name)
    if not listing.is_file():
        raise FileNotFoundError(f'{listing}, the ann_file which {loader}.dataset reads, does not exist')
    names = find_classes(dataset, loader, 'mmpretrain')
    counts = [part['num_classes'] for _, part in find_counts(cfg, 'mmpretrain')]
    check_image_list(listing, folder, dataset, len(names) if names else next(iter(counts), None), loader)
    return [ClassList('mmpretrain', loader, f'{loader}.dataset', names)] if names else []


def _check_folders(dataset: Mapping, name: str, loader: str, cfg: Mapping) -> ClassList | None:
    """Checks a dataset of several folders, and returns its classes if they are known."""
    root = Path(dataset.get('data_root') or '')
    folders = {use: root / folder for use, folder in dataset['data_prefix'].items() if is_path(folder)}
    annotations = root / dataset['ann_file'] if dataset.get('ann_file') and is_path(dataset['ann_file']) else None
    # Other datasets have other defaults.
    defaults = ('.jpg', '.png') if name in ('BaseSegDataset', 'ADE20KDataset') else ('', '')
    suffixes = {
        'img_path': dataset.get('img_suffix', defaults[0]),
        'seg_map_path': dataset.get('seg_map_suffix', defaults[1]),
    }
    if name in ('CocoDataset', 'ADE20KDataset'):
        layout = (COCO if name == 'CocoDataset' else ADE20K).format(root=root)
    else:
        files = [f'{folder}/<name>{suffixes.get(use, "")}' for use, folder in folders.items()]
        layout = '\n'.join([*files, *([str(annotations)] if annotations else [])])

    if annotations and not annotations.exists():
        raise FileNotFoundError(_describe(annotations, 'does not exist', loader, layout))
    package = _find_package(dataset, name)
    classes = find_classes(dataset, loader, package) if package else None
    if annotations and annotations.is_file():
        content = None
        fault = _find_fault(annotations)
        if name == 'CocoDataset' and not fault and annotations.stat().st_size < MAX_PARSED_BYTES:
            content, fault = _parse_coco(annotations, loader)
        if fault:
            raise ValueError(_describe(annotations, fault, loader, layout))
        fault = content and find_coco_fault(content, classes, find_given_classes(dataset, loader) is not None, loader)
        if fault:
            raise ValueError(f'{annotations}, which {loader}.dataset reads, {fault}')
    for use, folder in folders.items():
        suffix = suffixes.get(use, '')
        if not folder.is_dir():
            raise FileNotFoundError(_describe(folder, 'does not exist', loader, layout))
        if not _holds_files(folder, suffix):
            state = f'holds no {suffix} files' if suffix else 'holds no files'
            raise FileNotFoundError(_describe(folder, state, loader, layout))
    if package == 'mmseg':
        check_label_maps(dataset, folders, annotations, classes, loader, cfg)
    if package is None or classes is None:
        return None
    return ClassList(package, loader, f'{loader}.dataset', classes)


def _find_package(dataset: Mapping, name: str) -> str | None:
    """The package of a dataset of several folders, if we know the heads of its models."""
    scope = find_scope_and_name(dataset)[0]
    if scope:
        return scope if scope in ('mmdet', 'mmseg') else None
    if 'seg_map_path' in dataset['data_prefix']:
        return 'mmseg'
    return 'mmdet' if name == 'CocoDataset' else None


def _parse_coco(path: Path, loader: str) -> tuple[Any, str | None]:
    """Returns the content, and the parts that it lacks."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        return None, f'({path.stat().st_size} bytes) is truncated or not JSON: {error}'
    return content, find_empty_part(content, loader)


def _holds_files(folder: str | Path, suffix: str) -> bool:
    """Whether a folder holds such files at any depth, as mmengine looks for them; stops at the first."""
    with os.scandir(folder) as entries:
        return any(
            entry.name.endswith(suffix) if entry.is_file() else entry.is_dir() and _holds_files(entry.path, suffix)
            for entry in entries
            if not entry.name.startswith('.')
        )


def _find_fault(path: Path) -> str | None:
    """Finds faults of an annotation file from its beginning and end."""
    size = path.stat().st_size
    with path.open('rb') as file:
        head = file.read(1024).strip()
        file.seek(max(0, size - 1024))
        tail = file.read().strip()
    if not head:
        return f'is empty ({size} bytes)'
    if path.suffix == '.json' and (head[:1], tail[-1:]) not in ((b'{', b'}'), (b'[', b']')):
        return f'({size} bytes) is truncated or not JSON: it begins with {head[:1]!r} and ends with {tail[-1:]!r}'
    return None


def _describe(path: Path, state: str, loader: str, layout: str) -> str:
    return f'{path}, which {loader}.dataset reads, {state}. Set data_root, or lay the data out as\n{layout}'


def _is_local(dataset: Mapping) -> bool:
    backend = (dataset.get('backend_args') or {}).get('backend', 'local')
    return '://' not in (dataset.get('data_root') or '') and backend in ('local', 'disk')
