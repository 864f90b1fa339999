"""COCO files whose objects would be left out or get other classes' names are refused before training."""

import json
from pathlib import Path

import pytest
from dense_folders import write_coco
from mmdet.datasets import CocoDataset
from mmengine.config import Config

from smmix_mm.datasets.layout import check_data_layout

ROOT = Path(__file__).parents[2]
LOADERS = ('train_dataloader', 'val_dataloader')
NAMES = ('ball', 'bat', 'glove')


@pytest.fixture
def root(tmp_path):
    """Own data of three classes, with the ids 5, 3 and 9."""
    root = write_coco(tmp_path / 'coco')
    for split in ('train', 'val'):
        with edit(root, split) as content:
            content['categories'] = [dict(id=index, name=name) for index, name in zip((5, 3, 9), NAMES, strict=True)]
            for index, annotation in enumerate(content['annotations']):
                annotation['category_id'] = (5, 3, 9)[index % 3]
    return root


class edit:  # noqa: N801
    """Changes an annotation file in place."""

    def __init__(self, root, split='train'):
        self.path = root / f'annotations/instances_{split}2017.json'
        self.content = json.loads(self.path.read_text())

    def __enter__(self):
        return self.content

    def __exit__(self, *_):
        self.path.write_text(json.dumps(self.content))


def config(root, classes=NAMES, model=None, **dataset):
    def loader(split):
        settings = dict(
            type='mmdet.CocoDataset',
            data_root=str(root),
            ann_file=f'annotations/instances_{split}2017.json',
            data_prefix=dict(img=f'{split}2017/'),
        )
        return dict(dataset=settings | (dict(metainfo=dict(classes=classes)) if classes else {}) | dataset)

    cfg = dict(train_dataloader=loader('train'), val_dataloader=loader('val'), test_dataloader=loader('val'))
    return cfg | (dict(model=model) if model else {})


def build(root, classes=NAMES, split='train'):
    cfg = config(root, classes)[f'{split}_dataloader']['dataset']
    cfg.pop('type')
    return CocoDataset(**cfg)


def refusal(cfg, loaders=LOADERS):
    with pytest.raises(ValueError) as error:
        check_data_layout(cfg, loaders)
    return str(error.value)


def test_own_classes_pass(root):
    check_data_layout(config(root), (*LOADERS, 'test_dataloader'))
    check_data_layout(config(root, list(NAMES)), LOADERS)


def test_deliberate_subset_passes(root):
    check_data_layout(config(root, ('ball', 'glove')), LOADERS)
    assert sum(len(build(root, ('ball', 'glove'))[index]['instances']) for index in range(4)) == 4


def test_file_of_other_classes_without_metainfo_is_refused(root):
    text = refusal(config(root, None))
    path = root / 'annotations/instances_train2017.json'
    assert text.startswith(f"{path}, which train_dataloader.dataset reads, does not fit COCO's 80 classes")
    assert 'lacks the categories person, bicycle' in text
    assert 'has the categories ball, bat, glove in addition (6 objects would be left out)' in text
    assert f'Set metainfo=dict(classes={NAMES})' in text


def test_part_of_cocos_categories_without_metainfo_is_refused(root):
    """mmdet would take the only category for the first class, a person."""
    for split in ('train', 'val'):
        with edit(root, split) as content:
            content['categories'] = [dict(id=3, name='car')]
            for annotation in content['annotations']:
                annotation['category_id'] = 3
    assert build(root, None)[0]['instances'][0]['bbox_label'] == 0
    text = refusal(config(root, None))
    assert 'lacks the categories person' in text
    assert "Set metainfo=dict(classes=('car',))" in text
    check_data_layout(config(root, ('car',)), LOADERS)


@pytest.mark.parametrize('split', ['train', 'val'])
def test_misspelt_category_is_refused(root, split):
    with edit(root, split) as content:
        content['categories'][1]['name'] = 'Bat'
    text = refusal(config(root))
    assert f'instances_{split}2017.json, which {split}_dataloader.dataset reads, does not fit metainfo.classes' in text
    lost = 2 if split == 'train' else 1
    assert f'lacks the categories bat and has the categories Bat in addition ({lost} objects would be left out)' in text
    assert "Set metainfo=dict(classes=('ball', 'Bat', 'glove'))" in text


def test_other_order_than_the_files_is_refused(root):
    """mmdet numbers categories as they stand in the file."""
    swapped = ('bat', 'ball', 'glove')
    assert [build(root, classes)[0]['instances'][0]['bbox_label'] for classes in (NAMES, swapped)] == [0, 0]
    text = refusal(config(root, swapped))
    assert 'lists the categories ball, bat, glove, but the order of metainfo.classes is bat, ball, glove' in text
    assert f'Set metainfo=dict(classes={NAMES})' in text


def test_files_with_categories_in_different_orders_are_refused(root):
    with edit(root, 'val') as content:
        content['categories'].reverse()
    text = refusal(config(root))
    assert 'instances_val2017.json' in text
    assert 'lists the categories glove, bat, ball, but the order of metainfo.classes is ball, bat, glove' in text


def test_loaders_with_different_classes_are_refused(root):
    cfg = config(root)
    cfg['val_dataloader']['dataset']['metainfo'] = dict(classes=NAMES[:2])
    text = refusal(cfg)
    assert 'the classes of val_dataloader.dataset differ from those of train_dataloader.dataset' in text
    assert "lacks ['glove']" in text
    # Files that are not parsed, too.
    for split in ('train', 'val'):
        with edit(root, split) as content:
            content['info'] = ' ' * 10_000_000
    cfg['val_dataloader']['dataset']['metainfo'] = dict(classes=NAMES[::-1])
    assert "has the order ('glove', 'bat', 'ball'), not ('ball', 'bat', 'glove')" in refusal(cfg)
    check_data_layout(config(root), LOADERS)


@pytest.mark.parametrize('field', ['id', 'image_id', 'category_id', 'bbox', 'area'])
@pytest.mark.parametrize('split', ['train', 'val'])
def test_missing_field_of_annotations_is_named(root, field, split):
    with edit(root, split) as content:
        for annotation in content['annotations'][1:3]:
            del annotation[field]
        total = len(content['annotations'])
    # mmdet stops without naming file or annotation.
    with pytest.raises(KeyError, match=f"^'{field}'$"):
        build(root, split=split)
    text = refusal(config(root))
    assert f'instances_{split}2017.json' in text
    assert f'lacks the field {field!r} in 2 of {total} annotations, first in ' in text
    assert ('first in id 2' if field != 'id' else "'bbox'") in text


def test_crowds_have_to_be_told_where_it_is_evaluated(root):
    """pycocotools stops on it after an epoch, mmdet's training does not."""
    for split in ('train', 'val'):
        with edit(root, split) as content:
            for annotation in content['annotations']:
                del annotation['iscrowd']
    build(root)
    check_data_layout(config(root), ['train_dataloader'])
    text = refusal(config(root))
    assert "instances_val2017.json, which val_dataloader.dataset reads, lacks the field 'iscrowd' in 4 of 4" in text
    assert 'annotations, first in id 1' in text


@pytest.mark.parametrize('field', ['id', 'file_name', 'height', 'width'])
def test_missing_field_of_images_is_named(root, field):
    with edit(root) as content:
        del content['images'][2][field]
    assert f'lacks the field {field!r} in 1 of 4 images' in refusal(config(root))


@pytest.mark.parametrize(('field', 'kind'), [('category_id', 'categories'), ('image_id', 'images')])
def test_annotations_that_refer_to_nothing_are_named(root, field, kind):
    with edit(root) as content:
        content['annotations'][3][field] = 77
    text = refusal(config(root))
    assert f'has 1 of 6 annotations with an unknown {field}, not among the {kind}' in text
    assert f'id 4 and {field} 77' in text


def test_repeated_categories_are_refused(root):
    with edit(root) as content:
        content['categories'].append(dict(id=11, name='bat'))
    assert 'holds several categories with the name bat' in refusal(config(root))
    with edit(root) as content:
        content['categories'][-1] = dict(id=5, name='net')
    assert 'holds several categories with the id 5' in refusal(config(root))


@pytest.mark.parametrize('fault', ['areas of 0', 'fractions'])
def test_boxes_that_would_all_be_left_out_are_refused(root, fault):
    with edit(root) as content:
        for annotation in content['annotations']:
            if fault == 'fractions':
                annotation['bbox'] = [side / 100 for side in annotation['bbox']]
            else:
                annotation['area'] = 0
    assert not any(build(root)[index]['instances'] for index in range(4))
    assert 'holds 6 annotations, all with an area of 0 or a box below one pixel' in refusal(config(root))


HEADS = {
    'roi_head.bbox_head': dict(roi_head=dict(bbox_head=dict(num_classes=80), mask_head=dict(num_classes=3))),
    'roi_head.mask_head': dict(roi_head=dict(bbox_head=dict(num_classes=3), mask_head=dict(num_classes=80))),
    'bbox_head': dict(bbox_head=dict(num_classes=80)),
    'roi_head.bbox_head[1]': dict(roi_head=dict(bbox_head=[dict(num_classes=3), dict(num_classes=80)])),
}


@pytest.mark.parametrize('setting', HEADS)
def test_head_for_another_number_of_classes_is_refused(root, setting):
    text = refusal(config(root, model=HEADS[setting]))
    assert text.startswith(f'model.{setting}.num_classes is 80; but train_dataloader.dataset has 3 classes: ball, bat,')
    fitting = json.loads(json.dumps(HEADS[setting]).replace('80', '3'))
    check_data_layout(config(root, model=fitting), LOADERS)
    too_few = json.loads(json.dumps(HEADS[setting]).replace('80', '2'))
    assert f'model.{setting}.num_classes is 2' in refusal(config(root, model=too_few))


def test_single_class_without_comma_is_refused(root):
    text = refusal(config(root, 'ball'))
    assert "train_dataloader.dataset.metainfo.classes is 'ball', which is not a file" in text
    assert "('ball',), with a comma" in text


@pytest.mark.parametrize(
    'recipe', ['mask_rcnn/mask-rcnn_pvt-tiny_fpn_1x_coco', 'retinanet/retinanet_pvt-tiny_fpn_1x_coco']
)
def test_shipped_configs_pass(tmp_path, recipe):
    root = write_coco(tmp_path / 'coco')
    cfg = Config.fromfile(ROOT / f'configs/{recipe}.py')
    for loader in (*LOADERS, 'test_dataloader'):
        cfg[loader].dataset.data_root = str(root)
    check_data_layout(cfg, (*LOADERS, 'test_dataloader'))
    # The same with a head for one class less.
    head = cfg.model.roi_head.bbox_head if 'roi_head' in cfg.model else cfg.model.bbox_head
    head.num_classes = 79
    assert 'bbox_head.num_classes is 79; but train_dataloader.dataset has 80 classes' in refusal(cfg)
