"""Digit scenes in the formats of COCO and ADE20K, read by pycocotools, Pillow, mmdet and mmseg."""

import json
from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.registry import init_default_scope
from PIL import Image
from pycocotools.coco import COCO

from smmix_mm.datasets.digit_scenes.dense import (
    DIGITS,
    digit_scenes_detection,
    digit_scenes_segmentation,
    make_dense_digit_scenes,
    to_annotations,
    to_label_map,
)
from smmix_mm.datasets.digit_scenes.dense_scenes import DenseScene, DenseStyle, draw_dense_scene
from smmix_mm.datasets.digit_scenes.scenes import load_split

SIZES = dict(train=60, val=20)


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('dense') / 'data'
    make_dense_digit_scenes(root, SIZES, seed=0)
    return root


@pytest.fixture(scope='module', params=['train', 'val'])
def split(request) -> str:
    return request.param


def test_pycocotools_and_label_maps_agree_pixel_by_pixel(root, split):
    """The label map is what COCO's masks paint: crowds first, the digits over them."""
    coco = COCO(root / f'annotations/instances_{split}.json')
    assert len(coco.getImgIds()) == SIZES[split]
    crowds = 0
    for image in coco.loadImgs(coco.getImgIds()):
        painted = np.ones((image['height'], image['width']), int)
        annotations = coco.loadAnns(coco.getAnnIds(image['id']))
        masks = {annotation['id']: coco.annToMask(annotation).astype(bool) for annotation in annotations}
        assert np.sum([*masks.values(), np.zeros_like(painted)], axis=0).max() <= 1
        for annotation in annotations:
            mask = masks[annotation['id']]
            crowds += annotation['iscrowd']
            painted[mask] = 0 if annotation['iscrowd'] else annotation['category_id'] + 1
            rows, cols = np.nonzero(mask)
            left, top, width, height = annotation['bbox']
            assert (cols.min(), rows.min(), cols.max() + 1, rows.max() + 1) == (left, top, left + width, top + height)
            assert annotation['area'] == mask.sum() > 0
        stem = Path(image['file_name']).stem
        with Image.open(root / f'annotations/{split}/{stem}.png') as label_map:
            assert label_map.mode == 'L'
            assert np.array_equal(np.array(label_map), painted)
        with Image.open(root / f'images/{split}/{image["file_name"]}') as picture:
            assert picture.format == 'JPEG'
            assert picture.size == (image['width'], image['height'])
    assert crowds > 0


def test_crowds_are_run_lengths_and_digits_polygons(root):
    content = json.loads((root / 'annotations/instances_train.json').read_text())
    for annotation in content['annotations']:
        assert isinstance(annotation['segmentation'], dict if annotation['iscrowd'] else list)
    ids = [annotation['id'] for annotation in content['annotations']]
    assert ids == list(range(1, len(ids) + 1))
    assert [category['name'] for category in content['categories']] == list(DIGITS)


def test_mmdet_and_mmseg_read_the_same(root, split):
    init_default_scope('mmdet')
    detection = ROOT_DATASETS.build(
        dict(type='smmix_mm.DigitScenesDetection', data_root=str(root), split=split, sizes=SIZES, test_mode=True)
    )
    segmentation = ROOT_DATASETS.build(
        dict(type='smmix_mm.DigitScenesSegmentation', data_root=str(root), split=split, sizes=SIZES)
    )
    assert type(detection).__name__ == 'CocoDataset'
    assert type(segmentation).__name__ == 'BaseSegDataset'
    assert len(detection) == len(segmentation) == SIZES[split]
    assert segmentation.metainfo['classes'] == ('background', *detection.metainfo['classes'])
    for index in range(SIZES[split]):
        found, labelled = detection.get_data_info(index), segmentation.get_data_info(index)
        assert found['img_path'] == labelled['img_path']
        label_map = np.array(Image.open(labelled['seg_map_path']))
        for instance in found['instances']:
            left, top, right, bottom = map(int, instance['bbox'])
            wanted = 0 if instance['ignore_flag'] else instance['bbox_label'] + 2
            assert wanted in label_map[top:bottom, left:right]


def test_same_seed_same_bytes(tmp_path):
    for name, seed in (('a', 0), ('b', 0), ('c', 1)):
        make_dense_digit_scenes(tmp_path / name, dict(train=6, val=3), seed)
    a, b, c = (
        {str(path.relative_to(tmp_path / name)): path.read_bytes() for path in (tmp_path / name).rglob('*.*')}
        for name in 'abc'
    )
    assert len(a) == 2 * 9 + 3
    assert a == b
    assert all(a[name] != c[name] for name in a)


def test_scenes_overlap_but_every_digit_is_seen():
    digits, overlapping, empty = load_split('train'), 0, 0
    for index in range(120):
        scene = draw_dense_scene(digits, [0, index], DenseStyle(fragments=(0, 0), noise=0.0, empty_share=0.1))
        assert scene.image.shape == (128, 160, 3)
        assert len(scene.labels) == len(scene.masks) <= 5
        assert all(mask.sum() > 60 for mask in scene.masks)
        empty += not scene.masks
        # Boxes that overlap by more than their borders.
        boxes = [np.argwhere(mask) for mask in scene.masks]
        corners = [(box.min(axis=0), box.max(axis=0)) for box in boxes]
        overlapping += any(
            (np.minimum(high, other_high) - np.maximum(low, other_low) > 2).all()
            for i, (low, high) in enumerate(corners)
            for other_low, other_high in corners[:i]
        )
    assert overlapping > 20
    assert 3 < empty < 30


def test_bright_pixels_are_the_masks():
    """Without fragments and noise, all that is bright is a digit or a part of a crowd."""
    digits = load_split('val')
    for index in range(30):
        scene = draw_dense_scene(digits, [1, index], DenseStyle(fragments=(0, 0), noise=0.0, crowd_share=0.5))
        masks = [*scene.masks, *([] if scene.crowd is None else [scene.crowd])]
        covered = np.any([*masks, np.zeros(scene.image.shape[:2], bool)], axis=0)
        bright = scene.image.max(axis=2) > 200
        assert (bright & covered).sum() >= 0.97 * bright.sum()


def test_pictures_without_objects_are_written():
    scene = DenseScene(np.zeros((4, 6, 3), np.uint8), [], [], None, 0)
    assert to_annotations(scene) == []
    assert (to_label_map(scene) == 1).all()


def test_crowd_hidden_by_digits_is_left_out():
    mask = np.ones((2, 3), bool)
    scene = DenseScene(np.zeros((2, 3, 3), np.uint8), [4], [mask], ~mask, 7)
    (annotation,) = to_annotations(scene)
    assert annotation['category_id'] == 5
    assert (to_label_map(scene) == 6).all()


def test_run_lengths_by_hand():
    crowd = np.array([[True, False], [True, True]])
    scene = DenseScene(np.zeros((2, 2, 3), np.uint8), [], [], crowd, 0)
    assert to_annotations(scene)[0]['segmentation'] == dict(size=[2, 2], counts=[0, 2, 1, 1])
    scene = DenseScene(np.zeros((2, 2, 3), np.uint8), [], [], ~crowd, 0)
    assert to_annotations(scene)[0]['segmentation'] == dict(size=[2, 2], counts=[2, 1, 1])


@pytest.mark.parametrize('dataset', [digit_scenes_detection, digit_scenes_segmentation])
def test_bad_splits_and_foreign_folders_are_refused(tmp_path, dataset):
    with pytest.raises(ValueError, match='split of the digit scenes'):
        dataset(data_root=str(tmp_path / 'data'), split='test')
    (tmp_path / 'mine.txt').write_text('mine')
    with pytest.raises(FileExistsError, match=str(tmp_path)):
        dataset(data_root=str(tmp_path))
    assert (tmp_path / 'mine.txt').read_text() == 'mine'
