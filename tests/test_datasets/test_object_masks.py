"""Masks of objects against the scenes that they were drawn from."""

import json

import cv2
import numpy as np
import pytest
from mmengine.registry import init_default_scope
from mmpretrain.datasets import CustomDataset

from smmix_mm.datasets import DigitScenes
from smmix_mm.datasets.digit_scenes.dense import make_dense_digit_scenes
from smmix_mm.datasets.digit_scenes.dense_scenes import draw_dense_scene
from smmix_mm.datasets.digit_scenes.scenes import SceneStyle, draw_ink, draw_scene, load_split
from smmix_mm.datasets.object_masks import CocoMasks, transform_mask

COUNT = 40


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp('dense') / 'data'
    make_dense_digit_scenes(root, dict(train=1, val=COUNT), seed=0)
    return root


@pytest.fixture
def masks(root):
    return CocoMasks(root / 'annotations/instances_val.json')


def test_coco_masks_are_the_union_of_the_objects(masks, root):
    empty = crowds = 0
    for index in range(COUNT):
        scene = draw_dense_scene(load_split('val'), [0, 1, index])
        expected = sum((mask.astype(int) for mask in scene.masks), np.zeros(scene.image.shape[:2], int))
        if scene.crowd is not None:
            crowds += 1
            expected = expected + scene.crowd
        found = masks(root / f'images/val/{index:06d}.jpg')
        if not expected.any():
            empty += 1
            assert found is None
            continue
        assert np.array_equal(found, (expected > 0).astype(np.float32))
    assert empty
    assert crowds


def test_boxes_take_the_place_of_missing_outlines(root, tmp_path):
    content = json.loads((root / 'annotations/instances_val.json').read_text())
    for annotation in content['annotations']:
        annotation['segmentation'] = []
    content['annotations'][0]['bbox'] = [10, 20, 30, 40]
    first = content['annotations'][0]['image_id']
    content['annotations'] = [item for item in content['annotations'][1:] if item['image_id'] != first] + [
        content['annotations'][0]
    ]
    (tmp_path / 'boxes.json').write_text(json.dumps(content))
    found = CocoMasks(tmp_path / 'boxes.json')(f'elsewhere/{first:06d}.jpg')
    assert found.sum() == 30 * 40
    assert found[20:60, 10:40].all()


def test_pictures_that_the_file_does_not_list_have_no_mask(masks):
    assert masks('unknown.jpg') is None


def test_pictures_of_one_name_are_refused(root, tmp_path):
    content = json.loads((root / 'annotations/instances_val.json').read_text())
    content['images'][1]['file_name'] = 'other/000000.jpg'
    (tmp_path / 'twice.json').write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r'twice\.json has several images of the file name 000000\.jpg'):
        CocoMasks(tmp_path / 'twice.json')


def test_files_of_another_kind_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'none\.json'):
        CocoMasks(tmp_path / 'none.json')
    (tmp_path / 'torn.json').write_text('{"images": [')
    with pytest.raises(ValueError, match=r'torn\.json is not a JSON file'):
        CocoMasks(tmp_path / 'torn.json')
    (tmp_path / 'other.json').write_text('{"images": []}')
    with pytest.raises(ValueError, match=r'other\.json holds no images'):
        CocoMasks(tmp_path / 'other.json')


@pytest.mark.parametrize(
    'steps',
    [
        [],
        [dict(type='mmpretrain.ResizeEdge', scale=48, edge='short', interpolation='bicubic', backend='pillow')],
        [dict(type='mmpretrain.ResizeEdge', scale=60, edge='short'), dict(type='mmpretrain.CenterCrop', crop_size=40)],
        [dict(type='mmpretrain.Resize', scale=(32, 64))],
    ],
)
def test_a_mask_is_resized_and_cropped_like_its_picture(tmp_path, steps):
    """The picture shows the mask."""
    init_default_scope('mmpretrain')
    mask = np.zeros((72, 90), np.float32)
    mask[10:50, 30:80] = 1
    (tmp_path / 'a').mkdir()
    cv2.imwrite(str(tmp_path / 'a/0.png'), np.repeat((255 * mask).astype(np.uint8)[..., None], 3, axis=2))
    pipeline = [dict(type='smmix_mm.LoadImage'), *steps, dict(type='mmpretrain.PackInputs')]
    dataset = CustomDataset(data_root=str(tmp_path), pipeline=pipeline)
    found = transform_mask(mask, dataset.pipeline)
    assert np.array_equal(found.numpy() * 255, dataset[0]['inputs'][0].numpy())
    assert 0.1 < found.mean() < 0.7


def test_ink_is_where_the_digit_was_drawn():
    """Without fragments and noise one channel of the digit's colour is 255."""
    style = SceneStyle(fragments=(0, 0), noise=0.0)
    for index in range(20):
        image, _ = draw_scene(load_split('val'), [0, 1, index], style)
        ink = draw_ink(load_split('val'), [0, 1, index], style)
        assert ink.shape == (64, 64)
        assert (image.max(axis=2)[ink == 1] == 255).all()
        assert image[ink == 0].max() < 120
        assert 0.02 < (ink == 1).mean() < 0.3


def test_ink_of_a_dataset_is_that_of_its_pictures(tmp_path):
    dataset = DigitScenes(data_root=str(tmp_path / 'data'), split='val', sizes=dict(train=1, val=20), seed=3)
    ratios = []
    for index in range(20):
        path = dataset.get_data_info(index)['img_path']
        ink = dataset.draw_ink(path)
        assert np.array_equal(ink, draw_ink(load_split('val'), [3, 1, int(path[-10:-4])]))
        bright = cv2.imread(path).max(axis=2)
        ratios.append(bright[ink == 1].mean() / bright[ink == 0].mean())
    assert min(ratios) > 1.5
