"""Folders named by synsets have ImageNet's labels, however many of them there are."""

import pkgutil

import cv2
import numpy as np
import pytest
from mmpretrain.datasets import ImageNet
from mmpretrain.registry import DATASETS
from timm.data import ImageNetInfo

from smmix_mm.datasets import synset_folders
from smmix_mm.datasets.synset_folders import read_labels

LOAD = [dict(type='smmix_mm.LoadImage'), dict(type='mmpretrain.PackInputs')]


def write_images(folder, **counts):
    """Writes the given number of pictures into folders of the given names."""
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            cv2.imwrite(str(folder / name / f'{index}.JPEG'), np.full((8, 9, 3), 7 * index, dtype=np.uint8))
    return folder


def build(folder, **settings):
    return DATASETS.build(dict(type='smmix_mm.SynsetFolders', data_root=str(folder), pipeline=LOAD, **settings))


def test_labels_are_those_of_the_library():
    labels, info = read_labels(), ImageNetInfo('imagenet-1k')
    assert list(labels) == info.label_names()
    assert list(labels.values()) == list(range(1000))
    # Folders are in the order of their labels, so that whole datasets have the labels of mmpretrain's ImageNet.
    assert list(labels) == sorted(labels)
    names = [name.split(',')[0] for name in ImageNet.METAINFO['classes']]
    assert [info.index_to_description(label).split(',')[0] for label in range(1000)] == names


@pytest.mark.parametrize('subset', ['imagenet_a', 'imagenet_r'])
def test_the_200_classes_are_those_of_the_library(subset):
    """timm has their labels in a list of its own."""
    labels = read_labels(subset)
    listed = pkgutil.get_data('timm.data', f'_info/{subset}_indices.txt').decode().split()
    assert list(labels.values()) == [int(label) for label in listed]
    assert len(set(labels.values())) == 200
    assert labels.items() <= read_labels().items()


def test_a_part_of_the_folders_keeps_its_labels(tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr(synset_folders, 'print_log', lambda text, **_: warnings.append(text))
    # Stingray, house finch and, without images, bald eagle: the 7th, 13th and 23rd class of ImageNet-1k.
    folder = write_images(tmp_path, n01498041=2, n01532829=1, n01614925=0)
    dataset = build(folder)
    assert [sample['data_samples'].gt_label.item() for sample in dataset] == [6, 6, 12]
    assert len(dataset.metainfo['classes']) == 1000
    assert dataset.metainfo['classes'][12] == 'house finch, linnet, Carpodacus mexicanus'
    assert dataset.metainfo['subset'] == tuple(range(1000))
    assert warnings == [f'{folder} has no images of 998 of the 1000 classes of imagenet']


def test_a_subset_names_its_classes(tmp_path):
    # Not a folder: ImageNet-A comes with a README.txt.
    folder = write_images(tmp_path / 'imagenet-a', n01498041=1)
    (folder / 'README.txt').touch()
    dataset = build(tmp_path, data_prefix='imagenet-a', subset='imagenet_a')
    assert dataset.metainfo['subset'] == tuple(read_labels('imagenet_a').values())
    assert dataset[0]['data_samples'].gt_label.item() == 6


@pytest.mark.parametrize('names', [('n01498041', 'cats', 'n99999999'), ('n01498041', '.cache', 'n01440764')])
def test_other_folders_are_refused(tmp_path, names):
    """Also a class of ImageNet that the subset has not, and hidden ones, which mmpretrain counts."""
    folder = write_images(tmp_path, **dict.fromkeys(names, 1))
    found = ', '.join(sorted(names)[:2] if '.cache' in names else ['cats', 'n99999999'])
    with pytest.raises(ValueError, match=f'no synsets of imagenet_a: {found}. .*one of its 200 classes'):
        build(folder, subset='imagenet_a')


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r'nowhere does not exist; .* named by synsets in it, such as n01440764'
    ):
        build(tmp_path / 'nowhere')
    with pytest.raises(FileNotFoundError, match=f'{tmp_path}.* holds no folders'):
        build(tmp_path)
    folder = write_images(tmp_path, n01498041=0)
    with pytest.raises(FileNotFoundError, match=r'the 1 class folders of .* hold no images of'):
        build(folder)
    with pytest.raises(ValueError, match=r"subset of SynsetFolders has to be one of .*, but got 'imagenet_o'"):
        build(folder, subset='imagenet_o')
