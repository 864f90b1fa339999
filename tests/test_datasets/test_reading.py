"""Pictures that cannot be read and folders that are not there are named."""

import cv2
import numpy as np
import pytest

from smmix_mm.datasets import LoadImage
from smmix_mm.datasets.layout import check_data_layout


def check(cfg):
    check_data_layout(cfg, list(cfg))


@pytest.fixture
def jpeg(tmp_path):
    path = tmp_path / 'picture.jpg'
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8))
    return path


@pytest.mark.parametrize('backend', ['pillow', 'cv2'])
def test_loads_what_mmcv_loads(jpeg, backend):
    loaded = LoadImage(imdecode_backend=backend)(dict(img_path=str(jpeg)))
    assert loaded['img'].shape == (50, 60, 3)
    # Decoders differ by rounding in the colour conversion.
    assert np.abs(loaded['img'].astype(int) - cv2.imread(str(jpeg)).astype(int)).mean() < 3


@pytest.mark.parametrize('kept', [0, 10, 500, 2000])
def test_truncated_picture_is_named(jpeg, kept):
    whole = jpeg.read_bytes()
    assert len(whole) > 2000
    jpeg.write_bytes(whole[:kept])
    with pytest.raises(OSError, match=str(jpeg)):
        LoadImage()(dict(img_path=str(jpeg)))


def test_missing_picture_is_named(tmp_path):
    with pytest.raises(OSError, match=r'gone\.jpg'):
        LoadImage()(dict(img_path=str(tmp_path / 'gone.jpg')))


def config(root, **dataset):
    return dict(
        train_dataloader=dict(dataset=dict(type='mmpretrain.ImageNet', data_root=str(root), split='train', **dataset))
    )


def test_layout(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'train_dataloader.*does not exist') as error:
        check(config(tmp_path))
    assert f'{tmp_path}/\n  train/<class>/<image>' in str(error.value)
    (tmp_path / 'train').mkdir()
    with pytest.raises(FileNotFoundError, match='holds no class folders'):
        check(config(tmp_path))
    check(config(tmp_path, ann_file='list.txt'))
    (tmp_path / 'train' / 'n01440764').mkdir()
    check(config(tmp_path))


def test_layout_looks_into_wrappers_and_leaves_other_datasets_alone(tmp_path):
    inner = config(tmp_path)['train_dataloader']['dataset']
    wrapped = dict(val_dataloader=dict(dataset=dict(type='RepeatDataset', dataset=inner)))
    with pytest.raises(FileNotFoundError, match='val_dataloader'):
        check(wrapped)
    check_data_layout(wrapped, ['train_dataloader'])
    check(dict(train_dataloader=dict(dataset=dict(type='mmpretrain.CIFAR10', data_root=str(tmp_path)))))
    check(dict(train_dataloader=None))
    check(config('s3://bucket'))
