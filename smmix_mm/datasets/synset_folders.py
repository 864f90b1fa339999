"""Folders named by synsets, with the labels of ImageNet-1k: ImageNet itself and its variants."""

import logging
import pkgutil
from typing import Any

from mmengine.fileio import isdir
from mmengine.logging import print_log
from mmpretrain.datasets import CustomDataset, ImageNet
from mmpretrain.datasets.custom import find_folders, get_samples

from smmix_mm.registry import DATASETS

from .class_lists import shorten

# As timm names its lists of synsets.
SUBSETS = ('imagenet', 'imagenet_a', 'imagenet_r')


def read_labels(subset: str = 'imagenet') -> dict[str, int]:
    """The labels of synsets among the 1000 classes of ImageNet-1k, from the lists that timm carries.

    Args:
        subset (str): ``'imagenet'`` for all 1000, ``'imagenet_a'`` or ``'imagenet_r'`` for the 200 of ImageNet-A or
            ImageNet-R. Defaults to ``'imagenet'``.

    Raises:
        ValueError: If the subset is unknown.
    """
    if subset not in SUBSETS:
        raise ValueError(f'subset of SynsetFolders has to be one of {SUBSETS}, but got {subset!r}')
    labels = {synset: label for label, synset in enumerate(_read_synsets('imagenet'))}
    return {synset: labels[synset] for synset in _read_synsets(subset)}


def _read_synsets(subset: str) -> list[str]:
    return pkgutil.get_data('timm.data', f'_info/{subset}_synsets.txt').decode().split()


@DATASETS.register_module()
class SynsetFolders(CustomDataset):
    """Images in folders ``<synset>/<image>``, labelled with the 1000 classes of ImageNet-1k.

    mmpretrain's ``ImageNet`` numbers the folders that it finds, so that it needs all 1000. This one may hold some of
    them: ImageNet-A (arXiv 1907.07174), ImageNet-R (arXiv 2006.16241), ImageNet-Sketch (arXiv 1905.13549), Stylized
    ImageNet (arXiv 1811.12231), one corruption of ImageNet-C (arXiv 1903.12261), or a part of ImageNet itself. Classes
    without images are reported in a warning.

    Args:
        data_root (str): Folder of the dataset. Defaults to ``''``.
        data_prefix (str): Folder of the class folders in ``data_root``. Defaults to ``''``.
        subset (str): The classes that the dataset has, as in :func:`read_labels`. They become the metainfo ``subset``,
            which :class:`smmix_mm.evaluation.SubsetAccuracy` reads. Defaults to ``'imagenet'``, all 1000.
        metainfo (dict, optional): Further metainfo. Defaults to None.
        **kwargs: As in mmpretrain's ``CustomDataset``, without ``ann_file`` and ``with_label``.

    Raises:
        FileNotFoundError: If the folder does not exist, or holds no class folders or no images.
        ValueError: If the subset is unknown, or a folder is not named by a synset of it.
    """

    METAINFO = ImageNet.METAINFO

    def __init__(
        self,
        data_root: str = '',
        data_prefix: str = '',
        subset: str = 'imagenet',
        metainfo: dict | None = None,
        **kwargs: Any,
    ) -> None:
        self.labels = read_labels(subset)
        self.subset = subset
        metainfo = dict(metainfo or {}, subset=tuple(self.labels.values()))
        super().__init__(data_root=data_root, data_prefix=data_prefix, metainfo=metainfo, **kwargs)

    def _find_samples(self) -> list[tuple[str, int]]:
        folder = self.img_prefix.rstrip('/')
        names = find_folders(folder)[0] if isdir(folder) else []
        if not names:
            state = 'holds no folders' if isdir(folder) else 'does not exist'
            raise FileNotFoundError(
                f'{folder} {state}; SynsetFolders needs folders named by synsets in it, such as '
                f'{next(iter(self.labels))}'
            )
        unknown = [name for name in names if name not in self.labels]
        if unknown:
            raise ValueError(
                f'{folder} holds folders that are no synsets of {self.subset}: {shorten(unknown)}. Every folder has to '
                f'be one of its {len(self.labels)} classes, such as {shorten(self.labels, 3)}: correct data_root, '
                'data_prefix or subset, or delete them'
            )
        samples, empty = get_samples(folder, {name: self.labels[name] for name in names}, self.is_valid_file)
        if not samples:
            raise FileNotFoundError(f'the {len(names)} class folders of {folder} hold no images of {self.extensions}')
        missing = len(self.labels) - len(names) + len(empty)
        if missing:
            print_log(
                f'{folder} has no images of {missing} of the {len(self.labels)} classes of {self.subset}',
                logger='current',
                level=logging.WARNING,
            )
        return samples
