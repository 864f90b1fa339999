"""Folders of images whose sub-folders are the classes, as mmpretrain numbers them."""

import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from mmengine.logging import print_log

from smmix_mm.registry import find_scope_and_name

from .class_lists import ClassList, differ, find_classes, find_given_classes, is_path, shorten

# Suffixes of pictures, whether they are read or not.
PICTURES = {
    *('.jpg', '.jpeg', '.jpe', '.jfif', '.jp2', '.png', '.apng', '.gif', '.webp', '.avif', '.heic', '.heif'),
    *('.tif', '.tiff', '.bmp', '.dib', '.ppm', '.pgm', '.pbm', '.pnm', '.tga', '.ico'),
}
# mmpretrain's default.
EXTENSIONS = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif')


def list_pictures(folder: Path, deep: bool = True) -> list[Path]:
    """Lists the pictures in a folder, sorted, without hidden files.

    Args:
        folder (Path): The folder.
        deep (bool): Whether those of its sub-folders are listed too. Defaults to True.
    """
    found = folder.rglob('*') if deep else folder.iterdir()
    return sorted(path for path in found if path.suffix.lower() in PICTURES and path.name[0] != '.' and path.is_file())


def find_image_folder(dataset: Mapping) -> Path | None:
    """The folder of a dataset of images; None if it is not on local disk."""
    root = dataset.get('data_root') or ''
    prefix = dataset.get('data_prefix') or dataset.get('split') or ''
    if isinstance(prefix, Mapping):
        prefix = prefix.get('img_path') or ''
    return Path(root, Path(prefix).expanduser()) if is_path(root) and is_path(prefix) else None


def has_class_folders(dataset: Mapping) -> bool:
    """Whether labels are read, and from the names of folders instead of an annotation file."""
    name = find_scope_and_name(dataset)[1]
    # mmpretrain treats ImageNet's test split as unlabelled.
    labelled = dataset.get('with_label', True) and not (name == 'ImageNet' and dataset.get('split') == 'test')
    listing = Path(dataset.get('data_root') or '', 'meta', f'{dataset.get("split")}.txt')
    return name in ('ImageNet', 'CustomDataset') and labelled and not (dataset.get('ann_file') or listing.is_file())


def find_class_folders(folder: Path) -> tuple[str, ...]:
    """The sub-folders in the order of mmpretrain's labels, which counts hidden ones too."""
    return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir()))


def list_class_folders(folder: Path, loader: str) -> ClassList:
    """The classes of a folder of class folders."""
    return ClassList('mmpretrain', loader, f'{folder}, which {loader}.dataset reads,', find_class_folders(folder))


def check_class_folders(folder: Path, dataset: Mapping, loader: str) -> ClassList:
    """Refuses sub-folders that mmpretrain would mistake for classes, and warns of unread files.

    Args:
        folder (Path): The folder with a sub-folder for each class.
        dataset (Mapping): Settings of the dataset that reads it.
        loader (str): Its dataloader.

    Returns:
        ClassList: The classes.

    Raises:
        ValueError: If a folder is hidden, or a class has no images: in any loader if it has files that are not read,
            in training also if it has no files.
    """
    names = find_class_folders(folder)
    hidden = [name for name in names if name.startswith('.')]
    if hidden:
        raise ValueError(
            f'{folder}, which {loader}.dataset reads, holds the hidden folders {shorten(hidden)}. Every sub-folder '
            'counts as a class, so they shift the labels of the classes after them: delete them'
        )
    extensions = tuple(extension.lower() for extension in dataset.get('extensions') or EXTENSIONS)
    unread: list[str] = []
    for name in names:
        count, others = _look_into(folder / name, extensions)
        if not count and others:
            raise ValueError(
                f'class folder {folder / name}, which {loader}.dataset reads, holds {len(others)} pictures, such as '
                f'{shorten(others, 3)}, but {_advise(extensions, others, loader)}'
            )
        if not count and loader.startswith('train'):
            raise ValueError(
                f'class folder {folder / name}, which {loader}.dataset reads, holds no images. Every sub-folder '
                'counts as a class: add images, or delete it in all splits'
            )
        unread += [f'{name}/{other}' for other in others]
    if unread:
        print_log(
            f'{len(unread)} pictures in {folder}, which {loader}.dataset reads, are left out: {shorten(unread, 5)}; '
            f'{_advise(extensions, unread, loader)}',
            logger='current',
            level=logging.WARNING,
        )
    return list_class_folders(folder, loader)


def check_same_folders(found: Iterable[ClassList]) -> None:
    """Refuses splits with different class folders: mmpretrain numbers the folders of each split separately.

    It does so even if ``classes`` is given: those are names for display.

    Args:
        found (Iterable[ClassList]): Results of :func:`check_class_folders` for all loaders.

    Raises:
        ValueError: If folders differ; it names those that are missing or extra, and the split.
    """
    found = list(found)
    for classes in found[1:]:
        other = found[0]
        lacking, extra = differ(classes.names, other.names)
        faults = [
            *([f'lacks {shorten(lacking)}'] if lacking else []),
            *([f'has {shorten(extra)} in addition'] if extra else []),
        ]
        if faults:
            raise ValueError(
                f'the class folders of {classes.source} differ from those of '
                f'{other.source.removesuffix(",")}: the former {" and ".join(faults)}. Labels are '
                'positions in the sorted folders of each dataset, even if classes=[...] is set, so the same label '
                'would mean different classes. Create the same folders in both; outside training they may be empty. '
                'Or list the images with their labels in an ann_file, and set the same classes=[...] in both datasets'
            )


def check_given_classes(folders: ClassList, dataset: Mapping) -> None:
    """Refuses ``classes`` that are not the folders': another number, or the same names in another order.

    Args:
        folders (ClassList): The class folders.
        dataset (Mapping): Settings of the dataset that reads them.

    Raises:
        ValueError: If they differ; it names both numbers, or both orders.
    """
    classes = find_classes(dataset, folders.loader, 'mmpretrain')
    if classes is None:
        return
    given = find_given_classes(dataset, folders.loader) is not None
    if len(classes) != len(folders.names):
        if given:
            remedy = 'Name every folder, in sorted order, or delete folders that are not classes'
        else:
            remedy = (
                "Set type='mmpretrain.CustomDataset' for classes of your own; for a part of these classes, list the "
                'images with their labels in an ann_file'
            )
        raise ValueError(
            f'{folders.source} holds {len(folders.names)} class folders, {shorten(folders.names)}, but '
            f'{"classes names" if given else "its type has"} {len(classes)} classes, {shorten(classes)}. Labels are '
            f'positions in the sorted folders. {remedy}'
        )
    if classes != folders.names and set(classes) == set(folders.names):
        raise ValueError(
            f'{folders.source} holds the class folders {shorten(folders.names)}, but classes names them as '
            f'{shorten(classes)}. Labels are positions in the sorted folders: set classes={list(folders.names)}'
        )


def refuse_undecodable(path: Path) -> None:
    """Refuses a file whose name is not UTF-8. Any other name, such as ``Übung 1.jpg``, works.

    Raises:
        ValueError: If so; it shows the bytes of the name.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise ValueError(
            f'the name of the file {os.fsencode(path)!r} is not UTF-8, so no log or list can hold it; rename it'
        ) from None


def _look_into(folder: Path, extensions: tuple[str, ...]) -> tuple[int, list[str]]:
    """Returns the number of files that are read, at any depth, and the names of other pictures."""
    count, others = 0, []
    for place, _, names in os.walk(folder, followlinks=True):
        for name in names:
            if name.startswith('.'):
                continue
            refuse_undecodable(Path(place, name))
            # mmpretrain ignores case.
            if name.lower().endswith(extensions):
                count += 1
            elif Path(name).suffix.lower() in PICTURES:
                others.append(str(Path(place, name).relative_to(folder)))
    return count, sorted(others)


def _advise(extensions: tuple[str, ...], unread: Iterable[str], loader: str) -> str:
    endings = (*extensions, *sorted({Path(name).suffix.lower() for name in unread}))
    return (
        f'only files that end with {", ".join(extensions)} are read. Convert them, or set '
        f'{loader}.dataset.extensions={endings}'
    )
