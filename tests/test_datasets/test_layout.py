"""Folders and annotation files that are not there, empty or truncated are named before training."""

import json

import pytest
from dense_folders import write_ade20k, write_coco
from mmdet.datasets import CocoDataset
from mmseg.datasets import ADE20KDataset

from smmix_mm.datasets import DigitScenes
from smmix_mm.datasets import layout as layout_module
from smmix_mm.datasets.layout import check_data_layout


def check(cfg):
    check_data_layout(cfg, list(cfg))


def config(root, **dataset):
    return dict(
        train_dataloader=dict(dataset=dict(type='mmpretrain.ImageNet', data_root=str(root), split='train') | dataset)
    )


def test_layout(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'train_dataloader.*does not exist') as error:
        check(config(tmp_path))
    assert f'{tmp_path}/\n  train/<class>/<image>' in str(error.value)
    (tmp_path / 'train').mkdir()
    with pytest.raises(FileNotFoundError, match='holds no class folders'):
        check(config(tmp_path))
    (tmp_path / 'train/0.JPEG').touch()
    (tmp_path / 'list.txt').write_text('0.JPEG 999\n')
    check(config(tmp_path, ann_file='list.txt'))
    (tmp_path / 'train' / 'n01440764').mkdir()
    (tmp_path / 'train' / 'n01440764' / '0.JPEG').touch()
    # Not as ImageNet, which has 1000 classes.
    check(config(tmp_path, type='mmpretrain.CustomDataset', data_prefix='train', split=None))


def test_layout_looks_into_wrappers_and_leaves_other_datasets_alone(tmp_path):
    inner = config(tmp_path)['train_dataloader']['dataset']
    wrapped = dict(val_dataloader=dict(dataset=dict(type='RepeatDataset', dataset=inner)))
    with pytest.raises(FileNotFoundError, match='val_dataloader'):
        check(wrapped)
    check_data_layout(wrapped, ['train_dataloader'])
    check(dict(train_dataloader=dict(dataset=dict(type='mmpretrain.CIFAR10', data_root=str(tmp_path)))))
    check(dict(train_dataloader=None))
    check(config('s3://bucket'))


def coco(root, loader='train_dataloader', split='train', **dataset):
    return {
        loader: dict(
            dataset=dict(
                type='mmdet.CocoDataset',
                data_root=str(root),
                ann_file=f'annotations/instances_{split}2017.json',
                data_prefix=dict(img=f'{split}2017/'),
            )
            | dataset
        )
    }


def ade20k(root, split='training', **dataset):
    return dict(
        train_dataloader=dict(
            dataset=dict(
                type='mmseg.ADE20KDataset',
                data_root=str(root),
                data_prefix=dict(img_path=f'images/{split}', seg_map_path=f'annotations/{split}'),
            )
            | dataset
        )
    )


def test_whole_coco_and_ade20k_pass(tmp_path):
    write_coco(tmp_path / 'coco')
    write_ade20k(tmp_path / 'ade')
    check(coco(tmp_path / 'coco') | coco(tmp_path / 'coco', 'val_dataloader', 'val'))
    check(ade20k(tmp_path / 'ade'))
    check(ade20k(tmp_path / 'ade', 'validation'))


@pytest.mark.parametrize('kind', ['mmdet.CocoDataset', 'CocoDataset', CocoDataset, 'mmdet.datasets.CocoDataset'])
def test_missing_parts_of_coco_are_named(tmp_path, kind):
    root = write_coco(tmp_path / 'coco')
    cfg = coco(root, type=kind)
    images = root / 'train2017'
    images.rename(tmp_path / 'elsewhere')
    with pytest.raises(FileNotFoundError, match=f'{images}, which train_dataloader.dataset reads, does not exist'):
        check(cfg)
    images.mkdir()
    (images / '.DS_Store').touch()
    with pytest.raises(FileNotFoundError, match=f'{images}, .* holds no files') as error:
        check(cfg)
    tree = '/\n  annotations/instances_{train,val}2017.json\n  train2017/<image>\n  val2017/<image>'
    assert str(error.value).endswith(f'{root}{tree}')
    (root / 'annotations/instances_train2017.json').unlink()
    with pytest.raises(FileNotFoundError, match=r'instances_train2017\.json, .* does not exist'):
        check(cfg)


@pytest.mark.parametrize('kind', ['mmseg.ADE20KDataset', 'ADE20KDataset', ADE20KDataset, 'mmseg.BaseSegDataset'])
def test_missing_parts_of_ade20k_are_named(tmp_path, kind):
    root = write_ade20k(tmp_path / 'ade')
    cfg = ade20k(root, type=kind)
    label_maps = root / 'annotations/training'
    for path in label_maps.iterdir():
        path.rename(path.with_suffix('.bmp'))
    with pytest.raises(FileNotFoundError, match=rf'{label_maps}, .* holds no \.png files') as error:
        check(cfg)
    if kind == 'mmseg.BaseSegDataset':
        assert f'\n{root}/images/training/<name>.jpg\n{label_maps}/<name>.png' in str(error.value)
    else:
        assert f'{root}/\n  images/{{training,validation}}/<name>.jpg' in str(error.value)
    check(ade20k(root, type=kind, seg_map_suffix='.bmp'))
    label_maps.rename(tmp_path / 'elsewhere')
    with pytest.raises(FileNotFoundError, match=f'{label_maps}, .* does not exist'):
        check(cfg)


FAULTS = {
    '': r'is empty \(0 bytes\)',
    ' \n\n': r'is empty \(3 bytes\)',
    '{}': 'holds no images and no categories and no annotations',
    '[]': 'holds no images and no categories and no annotations',
    '{"images": [{}], "categories": [{}], "annotations": []}': 'holds no annotations',
    '{"images": [{}], "categories": [{}]': r"truncated or not JSON: it begins with b'\{' and ends with b'\]'",
    # Cut off where an inner object ends.
    '{"images": [{"id": 1}': r'is truncated or not JSON: Expecting',
    'PK\x03\x04': "truncated or not JSON: it begins with b'P'",
}


@pytest.mark.parametrize('content', FAULTS)
def test_annotations_without_content_are_named(tmp_path, content):
    root = write_coco(tmp_path / 'coco')
    path = root / 'annotations/instances_train2017.json'
    path.write_text(content)
    with pytest.raises(ValueError, match=FAULTS[content]) as error:
        check(coco(root))
    assert str(path) in str(error.value)
    assert 'train2017/<image>' in str(error.value)


def test_annotations_of_other_classes_are_named(tmp_path):
    root = write_coco(tmp_path / 'coco')
    path = root / 'annotations/instances_train2017.json'
    content = json.loads(path.read_text())
    content['categories'] = content['categories'][:2]
    for annotation in content['annotations']:
        annotation['category_id'] = 2
    path.write_text(json.dumps(content))
    check(coco(root, metainfo=dict(classes=('bicycle',))))
    with pytest.raises(
        ValueError, match=r"no objects of metainfo.classes, \('person',\), but of \('person', 'bicycle'\)"
    ):
        check(coco(root, metainfo=dict(classes=['person'])))


def test_annotations_of_test_images_may_be_without_objects(tmp_path):
    root = write_coco(tmp_path / 'coco')
    path = root / 'annotations/instances_val2017.json'
    content = json.loads(path.read_text())
    path.write_text(json.dumps({key: content[key] for key in ('images', 'categories')}))
    check(coco(root, 'test_dataloader', 'val'))
    with pytest.raises(ValueError, match='holds no annotations'):
        check(coco(root, 'train_dataloader', 'val'))


def test_large_annotations_are_judged_by_their_ends(tmp_path, monkeypatch):
    root = write_coco(tmp_path / 'coco')
    path = root / 'annotations/instances_train2017.json'
    content = path.read_text()
    monkeypatch.setattr(layout_module, 'MAX_PARSED_BYTES', len(content))
    monkeypatch.setattr(layout_module.json, 'loads', lambda _: pytest.fail('was parsed'))
    path.write_text(content + '\n' * 200)
    check(coco(root))
    path.write_text(content[:-1] + ' ' * 20)
    with pytest.raises(ValueError, match='is truncated'):
        check(coco(root))


def test_list_of_a_segmentation_dataset(tmp_path):
    root = write_ade20k(tmp_path / 'ade')
    cfg = ade20k(root, type='mmseg.BaseSegDataset', ann_file='train.txt')
    with pytest.raises(FileNotFoundError, match=r'train\.txt, which train_dataloader'):
        check(cfg)
    (root / 'train.txt').touch()
    with pytest.raises(ValueError, match=r'train\.txt, .* is empty'):
        check(cfg)
    (root / 'train.txt').write_text('ADE_train_00000000\n')
    check(cfg)


def test_paths_are_joined_as_mmengine_joins_them(tmp_path):
    root = write_coco(tmp_path / 'coco')
    # Absolute paths stand for themselves; without data_root all are relative to the working directory.
    check(coco('', ann_file=str(root / 'annotations/instances_val2017.json'), data_prefix=dict(img=str(root))))
    check(coco(tmp_path / 'gone', ann_file='', data_prefix=dict(img=str(root / 'val2017'), seg=None)))


def test_layout_leaves_remote_and_other_packages_data_alone(tmp_path):
    check(coco('s3://bucket'))
    check(coco(tmp_path, backend_args=dict(backend='petrel', path_mapping={str(tmp_path): 's3://bucket'})))
    check(coco(tmp_path, ann_file='', data_prefix=dict(img='s3://bucket/train2017')))
    check(coco(tmp_path, type='my_package.CocoDataset'))
    for kind in ('smmix_mm.DigitScenes', DigitScenes, 'DigitScenesDetection', 'smmix_mm.DigitScenesSegmentation'):
        check(dict(train_dataloader=dict(dataset=dict(type=kind, data_root=str(tmp_path / 'made'), split='train'))))
    with pytest.raises(FileNotFoundError):
        check(coco(tmp_path, backend_args=dict(backend='local')))


def test_layout_looks_into_wrappers_of_dense_datasets(tmp_path):
    root = write_coco(tmp_path / 'coco')
    datasets = [coco(folder)['train_dataloader']['dataset'] for folder in (root, tmp_path / 'gone')]
    check(dict(train_dataloader=dict(dataset=dict(type='ConcatDataset', datasets=datasets[:1]))))
    for wrapped in (
        dict(type='ConcatDataset', datasets=datasets),
        dict(type='mmdet.MultiImageMixDataset', dataset=dict(type='RepeatDataset', times=2, dataset=datasets[1])),
    ):
        with pytest.raises(FileNotFoundError, match=f'{tmp_path}/gone'):
            check(dict(train_dataloader=dict(dataset=wrapped)))
