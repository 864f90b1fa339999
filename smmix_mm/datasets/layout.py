"""Tells before training starts whether the data is there."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

IMAGE_FOLDER = """{root}/
  {folder}/<class>/<image>"""

COCO = """{root}/
  annotations/instances_{{train,val}}2017.json
  train2017/<image>
  val2017/<image>"""

ADE20K = """{root}/
  images/{{training,validation}}/<name>.jpg
  annotations/{{training,validation}}/<name>.png"""

# Datasets of other packages may make or fetch what they read.
SCOPES = ('', 'mmpretrain', 'mmdet', 'mmseg')
# Above this size annotations are not parsed: it would take long, and they are read again right after.
MAX_PARSED_BYTES = 10_000_000


def check_data_layout(cfg: Mapping, loaders: Iterable[str]) -> None:
    """Checks the folders and annotation files of the datasets that a config reads from local disk.

    Image folders of mmpretrain, and the datasets of mmpretrain, mmdet and mmseg that have several folders
    (``data_prefix=dict(...)``), are checked. An empty dataset is refused too: endless samplers hang on it.

    Args:
        cfg (Mapping): A config.
        loaders (Iterable[str]): Which of its dataloaders to check, such as ``'train_dataloader'``.

    Raises:
        FileNotFoundError: With the path that is missing, or the folder that is empty, and the layout that is expected.
        ValueError: With the annotation file that is empty, truncated or without content, and the same layout.
    """
    for loader in loaders:
        for dataset in _datasets((cfg.get(loader) or {}).get('dataset')):
            kind = dataset['type']
            # Python-style configs hold the class itself.
            path = kind if isinstance(kind, str) else f'{kind.__module__}.{kind.__name__}'
            scope, name = path.split('.')[0] if '.' in path else '', path.rpartition('.')[2]
            if name in ('ImageNet', 'CustomDataset'):
                _check_image_folder(dataset, loader)
            elif scope in SCOPES and isinstance(dataset.get('data_prefix'), Mapping) and _is_local(dataset):
                _check_folders(dataset, name, loader)


def _check_image_folder(dataset: Mapping, loader: str) -> None:
    root = dataset.get('data_root', '')
    prefix = dataset.get('data_prefix') or dataset.get('split') or ''
    if '://' in root or not isinstance(prefix, str):
        return
    folder = Path(root, prefix)
    # With an annotation file the pictures may lie in any depth below the folder.
    listed = dataset.get('ann_file') or Path(root, 'meta', f'{dataset.get("split")}.txt').is_file()
    if not folder.is_dir() or not (listed or any(path.is_dir() for path in folder.iterdir())):
        state = 'holds no class folders' if folder.is_dir() else 'does not exist'
        raise FileNotFoundError(_describe(folder, state, loader, IMAGE_FOLDER.format(root=root, folder=prefix or '.')))


def _check_folders(dataset: Mapping, name: str, loader: str) -> None:
    """A dataset of folders by their use, and mostly an annotation file."""
    root = Path(dataset.get('data_root') or '')
    folders = {use: root / folder for use, folder in dataset['data_prefix'].items() if _is_path(folder)}
    annotations = root / dataset['ann_file'] if dataset.get('ann_file') and _is_path(dataset['ann_file']) else None
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
    if annotations and annotations.is_file():
        fault = _find_fault(annotations)
        if name == 'CocoDataset' and not fault and annotations.stat().st_size < MAX_PARSED_BYTES:
            fault = _find_coco_fault(annotations, dataset, loader.startswith('train'))
        if fault:
            raise ValueError(_describe(annotations, fault, loader, layout))
    for use, folder in folders.items():
        suffix = suffixes.get(use, '')
        if not folder.is_dir():
            raise FileNotFoundError(_describe(folder, 'does not exist', loader, layout))
        if not _holds_files(folder, suffix):
            state = f'holds no {suffix} files' if suffix else 'holds no files'
            raise FileNotFoundError(_describe(folder, state, loader, layout))


def _is_path(setting: object) -> bool:
    return isinstance(setting, str) and '://' not in setting


def _holds_files(folder: str | Path, suffix: str) -> bool:
    """At any depth, as mmengine looks for them; ends at the first."""
    with os.scandir(folder) as entries:
        return any(
            entry.name.endswith(suffix) if entry.is_file() else entry.is_dir() and _holds_files(entry.path, suffix)
            for entry in entries
            if not entry.name.startswith('.')
        )


def _find_fault(path: Path) -> str | None:
    """What the ends of an annotation file tell."""
    size = path.stat().st_size
    with path.open('rb') as file:
        head = file.read(1024).strip()
        file.seek(max(0, size - 1024))
        tail = file.read().strip()
    if not head:
        return f'is empty ({size} bytes)'
    if path.suffix == '.json' and (head[:1], tail[-1:]) not in ((b'{', b'}'), (b'[', b']')):
        return f'({size} bytes) is truncated, or no JSON: it begins with {head[:1]!r} and ends with {tail[-1:]!r}'
    return None


def _find_coco_fault(path: Path, dataset: Mapping, for_training: bool) -> str | None:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        return f'({path.stat().st_size} bytes) is truncated, or no JSON: {error}'
    # Files of unlabelled test images have no annotations.
    needed = ['images', 'categories', *(['annotations'] if for_training else [])]
    lacking = [key for key in needed if not (isinstance(content, dict) and content.get(key))]
    if lacking:
        return f'holds no {" and no ".join(lacking)}'
    classes = (dataset.get('metainfo') or {}).get('classes')
    if for_training and isinstance(classes, list | tuple):
        names = {category['id']: category['name'] for category in content['categories']}
        if not any(names.get(annotation['category_id']) in classes for annotation in content['annotations']):
            return f'holds no objects of metainfo.classes, {tuple(classes)}, but of {tuple(names.values())}'
    return None


def _describe(path: Path, state: str, loader: str, layout: str) -> str:
    return f'{path}, which {loader}.dataset reads, {state}. Set data_root, or lay the data out as\n{layout}'


def _is_local(dataset: Mapping) -> bool:
    backend = (dataset.get('backend_args') or {}).get('backend', 'local')
    return '://' not in (dataset.get('data_root') or '') and backend in ('local', 'disk')


def _datasets(dataset: Mapping | None) -> Iterator[Mapping]:
    """The dataset, or those that it wraps."""
    if not dataset:
        return
    inner = dataset.get('dataset') or dataset.get('datasets')
    if inner is None:
        yield dataset
    else:
        for wrapped in inner if isinstance(inner, list | tuple) else [inner]:
            yield from _datasets(wrapped)
