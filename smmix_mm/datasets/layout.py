"""Tells before training starts whether the data is there."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

IMAGE_FOLDER = """{root}/
  train/<class>/<image>
  val/<class>/<image>"""


def check_data_layout(cfg: Mapping, loaders: Iterable[str]) -> None:
    """Checks the folders of the datasets that a config reads from local disk.

    Args:
        cfg (Mapping): A config.
        loaders (Iterable[str]): Which of its dataloaders to check, such as ``'train_dataloader'``.

    Raises:
        FileNotFoundError: With the path that is missing and the layout that is expected.
    """
    for loader in loaders:
        for dataset in _datasets((cfg.get(loader) or {}).get('dataset')):
            kind = dataset['type']
            # Python-style configs hold the class itself.
            name = kind.rpartition('.')[2] if isinstance(kind, str) else kind.__name__
            if name in ('ImageNet', 'CustomDataset'):
                _check_image_folder(dataset, loader)


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
        raise FileNotFoundError(
            f'{folder}, which {loader}.dataset reads, {state}. Set data_root, or lay the data out as\n'
            + IMAGE_FOLDER.format(root=root)
        )


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
