"""Bad input of all three tasks: read by the libraries' own datasets, handled as their users expect, or named."""

import copy
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from dense_folders import write_ade20k, write_coco
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.fileio import load
from mmengine.registry import init_default_scope
from mmseg.datasets import ADE20KDataset, BaseSegDataset
from mmseg.registry import DATASETS as MMSEG_DATASETS
from mmseg.registry import METRICS as MMSEG_METRICS
from PIL import Image

from smmix_mm.datasets import LoadImage, LoadInstances, LoadLabelMap
from smmix_mm.engine import build_runner
from smmix_mm.registry import MODELS

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


@pytest.fixture
def jpeg(tmp_path):
    path = tmp_path / 'picture.jpg'
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8))
    return path


@pytest.fixture
def png(tmp_path):
    path = tmp_path / 'picture.png'
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8))
    return path


@pytest.mark.parametrize('backend', ['torchvision', 'pillow', 'cv2'])
def test_loads_what_mmcv_loads(jpeg, backend):
    loaded = LoadImage(imdecode_backend=backend)(dict(img_path=str(jpeg)))
    assert loaded['img'].shape == (50, 60, 3)
    # Decoders may differ by rounding in the colour conversion.
    assert np.abs(loaded['img'].astype(int) - cv2.imread(str(jpeg)).astype(int)).mean() < 3


@pytest.mark.parametrize('kept', [0, 10, 500, 2000])
@pytest.mark.parametrize('kind', ['jpeg', 'png'])
def test_truncated_picture_is_named(request, kind, kept):
    path = request.getfixturevalue(kind)
    whole = path.read_bytes()
    assert len(whole) > 2000
    path.write_bytes(whole[:kept])
    with pytest.raises(OSError, match=f'image {path} cannot be read'):
        LoadImage()(dict(img_path=str(path)))


def test_missing_picture_is_named(tmp_path):
    with pytest.raises(OSError, match=r'gone\.jpg'):
        LoadImage()(dict(img_path=str(tmp_path / 'gone.jpg')))


# Instances


def edit(path: Path, change) -> None:
    """Lets `change` edit a JSON file's content."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def coco_dataset(root, pipeline=None, **settings) -> CocoDataset:
    return CocoDataset(
        data_root=str(root),
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017'),
        pipeline=pipeline or [dict(type='smmix_mm.LoadImage'), dict(type='smmix_mm.LoadInstances', with_mask=True)],
        **settings,
    )


@pytest.fixture
def coco(tmp_path):
    init_default_scope('mmdet')
    return write_coco(tmp_path / 'coco')


def test_boxes_and_masks_are_mmdets_own(coco):
    stock = [dict(type='LoadImageFromFile'), dict(type='mmdet.LoadAnnotations', with_bbox=True, with_mask=True)]
    annotations = json.loads((coco / 'annotations/instances_train2017.json').read_text())['annotations']
    for index, (ours, theirs) in enumerate(zip(coco_dataset(coco), coco_dataset(coco, stock), strict=True)):
        assert ours.keys() == theirs.keys()
        np.testing.assert_array_equal(ours['gt_bboxes'].tensor, theirs['gt_bboxes'].tensor)
        np.testing.assert_array_equal(ours['gt_masks'].masks, theirs['gt_masks'].masks)
        np.testing.assert_array_equal(ours['gt_ignore_flags'], theirs['gt_ignore_flags'])
        # The objects are rectangles.
        wanted = [annotation for annotation in annotations if annotation['image_id'] == index]
        assert ours['gt_ignore_flags'].tolist() == [bool(annotation['iscrowd']) for annotation in wanted]
        for mask, annotation in zip(ours['gt_masks'].masks, wanted, strict=True):
            x, y, w, h = annotation['bbox']
            assert mask.sum() == mask[y : y + h, x : x + w].sum() == w * h


@pytest.mark.parametrize('segmentation', [None, [], ''])
def test_object_without_mask_is_named(coco, segmentation):
    def drop(content):
        annotation = content['annotations'][1]
        assert annotation['image_id'] == 0
        if segmentation is None:
            del annotation['segmentation']
        else:
            annotation['segmentation'] = segmentation

    edit(coco / 'annotations/instances_train2017.json', drop)
    dataset = coco_dataset(coco)
    with pytest.raises(
        ValueError, match=r'1 of 2 objects of image .*train2017/000000000000\.jpg \(id 0\) have no mask'
    ):
        dataset[0]
    # Boxes do not need it, and the other images have all theirs.
    assert all(len(data['gt_masks']) == len(data['gt_bboxes']) for data in map(dataset.__getitem__, (1, 2, 3)))
    boxes = coco_dataset(coco, [dict(type='smmix_mm.LoadImage'), dict(type='smmix_mm.LoadInstances')])[0]
    assert len(boxes['gt_bboxes']) == 2
    assert 'gt_masks' not in boxes


@pytest.mark.parametrize('poly2mask', [True, False])
def test_crowd_without_mask_is_ignored(coco, poly2mask):
    def drop(content):
        crowd = [annotation for annotation in content['annotations'] if annotation['iscrowd']]
        assert [annotation['image_id'] for annotation in crowd] == [1]
        del crowd[0]['segmentation']

    edit(coco / 'annotations/instances_train2017.json', drop)
    pipeline = [
        dict(type='smmix_mm.LoadImage'),
        dict(type='smmix_mm.LoadInstances', with_mask=True, poly2mask=poly2mask),
        dict(type='mmdet.PackDetInputs'),
    ]
    sample = coco_dataset(coco, pipeline)[1]['data_samples']
    assert len(sample.gt_instances) == len(sample.gt_instances.masks) == 1
    assert len(sample.ignored_instances) == 1


def test_image_without_objects_loads(coco):
    data = coco_dataset(coco)[2]
    assert data['gt_bboxes'].tensor.shape == (0, 4)
    assert data['gt_masks'].masks.shape == (0, *data['img'].shape[:2])


@pytest.mark.parametrize('empty', [dict(bbox=[5, 5, 0, 10]), dict(bbox=[5, 5, 10, 0.5]), dict(area=0)])
def test_boxes_without_area_are_dropped(coco, empty):
    edit(coco / 'annotations/instances_train2017.json', lambda content: content['annotations'][0].update(empty))
    whole = json.loads((coco / 'annotations/instances_train2017.json').read_text())['annotations'][1]
    x, y, w, h = whole['bbox']
    data = coco_dataset(coco)[0]
    assert data['gt_bboxes'].tensor.tolist() == [[x, y, x + w, y + h]]
    assert data['gt_masks'].masks.sum() == w * h


@pytest.mark.parametrize('name', ['missing', 'truncated'])
def test_unreadable_picture_of_a_detector_is_named(coco, name):
    path = coco / 'train2017/000000000001.jpg'
    path.rename(path.with_suffix('.bak')) if name == 'missing' else path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(OSError, match=f'image {path} cannot be read'):
        coco_dataset(coco)[1]


def stored_turned(path: Path, orientation: int) -> None:
    """Stores a picture with rotated pixels, and an EXIF orientation that undoes the rotation."""
    turn = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.open(path).transpose(turn).save(path, exif=exif)


RESIZE = dict(type='mmdet.Resize', scale=(150, 122), keep_ratio=False)


@pytest.mark.parametrize('after_resizing', [False, True])
def test_picture_of_another_size_than_its_annotation_is_named(coco, after_resizing):
    path = coco / 'train2017/000000000000.jpg'
    Image.open(path).resize((60, 50)).save(path)
    pipeline = [dict(type='smmix_mm.LoadImage'), dict(type='smmix_mm.LoadInstances')]
    pipeline[1:1] = [RESIZE] * after_resizing
    dataset = coco_dataset(coco, pipeline)
    with pytest.raises(ValueError) as error:
        dataset[0]
    assert str(error.value).startswith(
        f'image {path} (id 0) has 50 x 60 pixels (height x width), but its annotation says 61 x 75'
    )
    assert 'resized after it was annotated' in str(error.value)
    assert 'color_ignore_orientation' not in str(error.value)
    # The others fit, at whatever size they are trained on.
    assert all(len(dataset[index]['gt_bboxes']) == (0 if index == 2 else 2) for index in (1, 2, 3))


@pytest.mark.parametrize('after_resizing', [False, True])
def test_picture_turned_by_exif_is_named(coco, after_resizing):
    """It was annotated as its pixels are stored, by a tool that ignores EXIF."""
    path = coco / 'train2017/000000000000.jpg'
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).save(path, exif=exif)
    pipeline = [dict(type='smmix_mm.LoadImage'), dict(type='smmix_mm.LoadInstances', with_mask=True)]
    pipeline[1:1] = [RESIZE] * after_resizing
    with pytest.raises(ValueError) as error:
        coco_dataset(coco, pipeline)[0]
    assert f'image {path} (id 0) has 75 x 61 pixels (height x width), but its annotation says 61 x 75' in str(
        error.value
    )
    assert 'The sides are swapped: the image was rotated by its EXIF orientation' in str(error.value)
    # As the message says.
    pipeline[0]['color_type'] = 'color_ignore_orientation'
    data = coco_dataset(coco, pipeline)[0]
    assert data['ori_shape'] == (61, 75)
    # The rectangles are bright, all else is dark. Annotations that are loaded last have the original size.
    bright = cv2.resize(data['img'], (75, 61)).mean(axis=2) > 80
    for mask in data['gt_masks'].to_ndarray():
        assert bright[mask.astype(bool)].mean() > 0.9


@pytest.mark.parametrize('orientation', [3, 6])
def test_picture_annotated_as_it_is_shown_is_loaded(coco, orientation):
    before = coco_dataset(coco)[0]
    stored_turned(coco / 'train2017/000000000000.jpg', orientation)
    after = coco_dataset(coco)[0]
    np.testing.assert_array_equal(before['gt_masks'].masks, after['gt_masks'].masks)
    assert np.abs(before['img'].astype(int) - after['img']).mean() < 10


def test_pictures_without_a_known_size_are_loaded():
    load_instances = LoadInstances()
    data = dict(img_path='picture.jpg', img=np.zeros((5, 6, 3)), img_shape=(5, 6), ori_shape=(5, 6), instances=[])
    for known in (dict(), dict(height=None, width=None), dict(height=5, width=6)):
        assert len(load_instances({**data, **known})['gt_bboxes']) == 0
    # No picture was loaded, as where statistics of the boxes are made.
    assert len(load_instances(dict(instances=[], img_shape=(5, 6), height=7, width=8))['gt_bboxes']) == 0


# Label maps


def ade20k_dataset(root, pipeline=None, split='training', type=ADE20KDataset, **settings) -> BaseSegDataset:
    return type(
        data_root=str(root),
        data_prefix=dict(img_path=f'images/{split}', seg_map_path=f'annotations/{split}'),
        pipeline=pipeline or label_map_pipeline(),
        **settings,
    )


def label_map_pipeline(num_classes=150, reduce_zero_label=True, **settings) -> list[dict]:
    return [
        dict(type='smmix_mm.LoadImage'),
        dict(type='smmix_mm.LoadLabelMap', num_classes=num_classes, reduce_zero_label=reduce_zero_label, **settings),
    ]


@pytest.fixture
def ade(tmp_path):
    init_default_scope('mmseg')
    return write_ade20k(tmp_path / 'ade')


def label_map_path(root) -> Path:
    return root / 'annotations/training/ADE_train_00000000.png'


def rewrite(path: Path, change, dtype=np.uint8) -> np.ndarray:
    values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(dtype)
    change(values)
    cv2.imwrite(str(path), values)
    return values


def test_label_maps_are_mmsegs_own(ade):
    stock = [dict(type='LoadImageFromFile'), dict(type='mmseg.LoadAnnotations')]
    for ours, theirs in zip(ade20k_dataset(ade), ade20k_dataset(ade, stock), strict=True):
        assert ours.keys() == theirs.keys()
        np.testing.assert_array_equal(ours['gt_seg_map'], theirs['gt_seg_map'])
        raw = np.array(Image.open(ours['seg_map_path'])).astype(int)
        # 0 is of no class, the first class is 1.
        np.testing.assert_array_equal(ours['gt_seg_map'], np.where(raw == 0, 255, raw - 1))


@pytest.mark.parametrize(('value', 'reduce_zero_label', 'needed'), [
    (151, True, '1 to 150, or 0 or 255'),
    (254, True, '1 to 150, or 0 or 255'),
    (150, False, '0 to 149, or 255'),
])  # fmt: skip
def test_values_beyond_the_classes_are_named(ade, value, reduce_zero_label, needed):
    path = label_map_path(ade)

    def change(values):
        values[values == 0] = 1
        values[5, 5:8] = [value, 255, value - 1]

    rewrite(path, change)
    dataset = ade20k_dataset(
        ade,
        label_map_pipeline(reduce_zero_label=reduce_zero_label),
        type=BaseSegDataset,
        reduce_zero_label=reduce_zero_label,
    )
    beyond = [value - 1, value] if value == 254 else [value]
    with pytest.raises(ValueError) as error:
        dataset[0]
    assert f'label map {path} holds the values {beyond}; with num_classes=150' in str(error.value)
    assert f'values have to be {needed} (ignored)' in str(error.value)


def test_values_beyond_8_bits_are_named(ade):
    """mmseg cuts 16 bits off to 8, and 257 would pass as 1."""
    path = label_map_path(ade)
    values = rewrite(path, lambda values: None, dtype=np.uint16)
    assert Image.open(path).mode.startswith('I')
    np.testing.assert_array_equal(ade20k_dataset(ade)[0]['gt_seg_map'], np.where(values == 0, 255, values - 1))
    rewrite(path, lambda values: values[3:5].fill(257), dtype=np.uint16)
    with pytest.raises(ValueError, match=rf'{path} holds the values \[257\]'):
        ade20k_dataset(ade)[0]


def test_label_map_of_palette_colours_is_read_by_index(ade):
    path = label_map_path(ade)
    values = np.array(Image.open(path))
    image = Image.fromarray(values).convert('P')
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
    image.putdata(values.ravel().tolist())
    image.save(path)
    np.testing.assert_array_equal(ade20k_dataset(ade)[0]['gt_seg_map'], np.where(values == 0, 255, values - 1))


@pytest.mark.parametrize('shape', [(61, 74), (75, 61), (61, 75, 3)])
def test_label_map_of_another_shape_is_named(ade, shape):
    path = label_map_path(ade)
    cv2.imwrite(str(path), np.ones(shape, dtype=np.uint8))
    with pytest.raises(ValueError) as error:
        ade20k_dataset(ade)[0]
    image = ade / 'images/training/ADE_train_00000000.jpg'
    assert f'label map {path} has the shape {shape}, but needs that of image {image}, (61, 75)' in str(error.value)


def test_label_maps_of_test_pipelines_have_the_original_size(ade):
    """They are loaded after the image was resized."""
    load_image, load_label_map = label_map_pipeline()
    pipeline = [load_image, dict(type='Resize', scale=(160, 64), keep_ratio=True), load_label_map]
    data = ade20k_dataset(ade, pipeline, test_mode=True)[0]
    assert data['img'].shape[:2] == (64, 79)
    assert data['gt_seg_map'].shape == (61, 75)
    cv2.imwrite(str(label_map_path(ade)), np.ones((64, 79), dtype=np.uint8))
    with pytest.raises(ValueError, match=r'has the shape \(64, 79\), but needs that of image .*, \(61, 75\)'):
        ade20k_dataset(ade, pipeline, test_mode=True)[0]


@pytest.mark.parametrize('kept', [None, 0, 8, 60, 100])
def test_unreadable_label_map_is_named(ade, kept):
    path = label_map_path(ade)
    whole = path.read_bytes()
    assert len(whole) > 130
    path.unlink() if kept is None else path.write_bytes(whole[:kept])
    with pytest.raises(OSError, match=f'label map {path} cannot be read'):
        ade20k_dataset(ade)[0]


def test_zero_label_is_reduced_once_however_often_it_is_loaded(ade):
    dataset = ade20k_dataset(ade)
    first, again = dataset[0]['gt_seg_map'], dataset[0]['gt_seg_map']
    np.testing.assert_array_equal(first, again)


def test_zero_label_of_transform_and_dataset_have_to_agree(ade):
    dataset = ade20k_dataset(ade, label_map_pipeline(reduce_zero_label=False))
    with pytest.raises(ValueError, match='reduce_zero_label of LoadLabelMap is False, but that of the dataset is True'):
        dataset[0]


def test_some_of_the_classes(ade):
    """mmseg's label_map: the other classes become 'ignored', which is no value beyond the classes."""
    names = ADE20KDataset.METAINFO['classes']
    dataset = ade20k_dataset(ade, label_map_pipeline(num_classes=1), metainfo=dict(classes=names[:1]))
    raw = np.array(Image.open(label_map_path(ade)))
    np.testing.assert_array_equal(dataset[0]['gt_seg_map'], np.where(raw == 1, 0, 255))


def test_transforms_are_found_from_every_library():
    for scope in ('mmpretrain', 'mmdet', 'mmseg'):
        init_default_scope(scope)
        built = Compose([dict(type='smmix_mm.LoadInstances'), *label_map_pipeline()])
        assert [type(transform) for transform in built.transforms] == [LoadInstances, LoadImage, LoadLabelMap]
        assert 'num_classes=150' in repr(built)


# Test sets without labels


def test_segmentation_without_label_maps(ade, sem_fpn, tmp_path):
    """The configs' own test pipeline takes a folder of pictures alone."""
    cfg = Config.fromfile(CONFIGS / '_base_/datasets/ade20k_bs2_512x512.py')
    cfg.test_pipeline[1].scale = (128, 64)
    settings = {**cfg.test_dataloader.dataset, 'pipeline': cfg.test_pipeline, 'data_root': str(ade)}
    init_default_scope('mmseg')
    labelled = MMSEG_DATASETS.build(dict(settings))
    assert labelled[0]['data_samples'].gt_sem_seg.shape == (61, 75)
    shutil.rmtree(ade / 'annotations')
    with pytest.raises(OSError, match=r'label map .*annotations/validation/ADE_val_00000000.png cannot be read'):
        labelled[0]
    bare = MMSEG_DATASETS.build(dict(settings, data_prefix=dict(img_path='images/validation')))
    metric = MMSEG_METRICS.build(dict(cfg.test_evaluator, format_only=True, output_dir=str(tmp_path / 'predicted')))
    metric.dataset_meta = bare.metainfo
    for index in range(len(bare)):
        batch = pseudo_collate([bare[index]])
        assert 'gt_sem_seg' not in batch['data_samples'][0]
        with torch.no_grad():
            samples = sem_fpn.eval().test_step(batch)
        metric.process(batch, [sample.to_dict() for sample in samples])
    assert [Image.open(path).size for path in sorted((tmp_path / 'predicted').iterdir())] == [(75, 61), (90, 50)]


@pytest.mark.parametrize('kind', ['CustomDataset', 'ImageNet'])
def test_classification_without_labels(tmp_path, kind, monkeypatch):
    """mmengine's DumpResults takes the place of the metrics, which need labels."""
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    init_default_scope('mmpretrain')
    pictures = [np.full((40, 40, 3), level, dtype=np.uint8) for level in (10, 120, 230)]
    (tmp_path / 'test').mkdir()
    for index, picture in enumerate(pictures):
        cv2.imwrite(str(tmp_path / f'test/{index}.png'), picture)
    chosen = dict(data_prefix='test', with_label=False) if kind == 'CustomDataset' else dict(split='test')
    cfg = Config.fromfile(CONFIGS / 'smmix/pvt-mini_smmix_1xb32-8e_digit-scenes.py')
    cfg.test_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.test_dataloader.dataset = dict(
        type=f'mmpretrain.{kind}', data_root=str(tmp_path), pipeline=cfg.test_dataloader.dataset.pipeline, **chosen
    )
    cfg.merge_from_dict(
        {
            'test_evaluator._delete_': True,
            'test_evaluator.type': 'DumpResults',
            'test_evaluator.out_file_path': str(tmp_path / 'predictions.pkl'),
            'work_dir': str(tmp_path / 'work'),
            'log_level': 'ERROR',
        }
    )
    for name in ('train', 'val'):
        cfg[f'{name}_dataloader'] = cfg[f'{name}_cfg'] = None
    cfg.val_evaluator = cfg.optim_wrapper = cfg.param_scheduler = None
    runner = build_runner(cfg)
    assert runner.test() == {}
    predictions = load(tmp_path / 'predictions.pkl')
    assert [Path(prediction['img_path']).name for prediction in predictions] == ['0.png', '1.png', '2.png']
    for prediction in predictions:
        assert 'gt_label' not in prediction
        assert prediction['pred_score'].shape == (10,)
        assert prediction['pred_score'].sum().item() == pytest.approx(1)
        assert prediction['pred_label'].item() == prediction['pred_score'].argmax()


# Models


@pytest.fixture
def mask_rcnn(pvt_arch):
    return build_model('mask-rcnn_pvt-tiny_fpn', pvt_arch, 'mmdet', shrink_mask_rcnn)


@pytest.fixture
def sem_fpn(pvt_arch):
    return build_model('fpn_pvt-tiny', pvt_arch, 'mmseg', shrink_sem_fpn)


def build_model(name, arch, scope, shrink):
    init_default_scope(scope)
    cfg = Config.fromfile(CONFIGS / f'_base_/models/{name}.py').model
    # FPN and the heads are made for these strides.
    cfg.backbone.arch = {**arch, 'strides': [4, 2, 2, 2]}
    cfg.neck.update(in_channels=arch['embed_dims'], out_channels=16)
    shrink(cfg)
    model = MODELS.build(cfg)
    model.init_weights()
    return model


def shrink_mask_rcnn(cfg):
    cfg.rpn_head.update(in_channels=16, feat_channels=16)
    for extractor in (cfg.roi_head.bbox_roi_extractor, cfg.roi_head.mask_roi_extractor):
        extractor.out_channels = 16
    cfg.roi_head.bbox_head.update(in_channels=16, fc_out_channels=32)
    cfg.roi_head.mask_head.update(in_channels=16, conv_out_channels=16)
    cfg.train_cfg.rcnn.sampler.num = 32
    cfg.test_cfg.rcnn.update(score_thr=0.0, max_per_img=5)


def shrink_sem_fpn(cfg):
    cfg.decode_head.update(in_channels=[16] * 4, channels=16)
    cfg.data_preprocessor.size = (64, 64)


def compute_losses(model, batch) -> tuple[torch.Tensor, dict[str, float]]:
    """The sum, and what is logged by name, all of it finite."""
    losses = model.train()(**model.data_preprocessor(batch, True), mode='loss')
    total, logged = model.parse_losses(losses)
    logged = {name: value.item() for name, value in logged.items()}
    assert all(np.isfinite(value) for value in logged.values())
    return total, logged


def take_step(model, batch) -> dict[str, float]:
    """Forward and backward; the losses by name."""
    total, logged = compute_losses(model, batch)
    total.backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters())
    # The first layer and the last stage were reached.
    for name in ('patch_embed1.proj', 'block4.0.mlp.fc1'):
        assert model.backbone.get_submodule(name).weight.grad.abs().sum() > 0
    return logged


DETECTION = [
    dict(type='smmix_mm.LoadImage'),
    dict(type='smmix_mm.LoadInstances', with_mask=True),
    dict(type='mmdet.PackDetInputs'),
]


@pytest.mark.parametrize('chosen', [[2], [0, 2], [2, 2]])
def test_images_without_objects_train(coco, mask_rcnn, chosen):
    dataset = coco_dataset(coco, DETECTION, filter_cfg=dict(filter_empty_gt=False))
    batch = pseudo_collate([dataset[index] for index in chosen])
    assert [len(sample.gt_instances) for sample in batch['data_samples']] == [0 if i == 2 else 2 for i in chosen]
    losses = take_step(mask_rcnn, batch)
    # Without objects there is nothing to regress, but something to tell from objects.
    assert losses['loss_rpn_cls'] > 0
    if 0 not in chosen:
        assert losses['loss_rpn_bbox'] == losses['loss_bbox'] == losses['loss_mask'] == 0


def test_images_without_objects_are_left_out_only_on_request(coco):
    kept = [coco_dataset(coco, filter_cfg=dict(filter_empty_gt=flag)) for flag in (False, True)]
    assert [len(dataset) for dataset in kept] == [4, 3]


def test_image_of_crowds_alone_trains(coco, mask_rcnn):
    edit(
        coco / 'annotations/instances_train2017.json',
        lambda content: [annotation.update(iscrowd=1) for annotation in content['annotations']],
    )
    batch = pseudo_collate([coco_dataset(coco, DETECTION)[0]])
    assert len(batch['data_samples'][0].gt_instances) == 0
    assert take_step(mask_rcnn, batch)['loss_bbox'] == 0


def resized(data, size):
    """The image at another size, with its annotations."""
    init_default_scope('mmdet')
    resize = Compose([dict(type='mmdet.Resize', scale=size[::-1], keep_ratio=False), dict(type='mmdet.PackDetInputs')])
    return resize(data)


@pytest.mark.parametrize('size', [(20, 24), (7, 100), (33, 65), (31, 32)])
def test_detector_takes_small_and_odd_images(coco, mask_rcnn, size):
    loaded = coco_dataset(coco, DETECTION[:2])[0]
    batch = pseudo_collate([resized(loaded, size)])
    padded = mask_rcnn.data_preprocessor(copy.deepcopy(batch), True)['inputs']
    assert padded.shape[2:] == tuple(-(-side // 32) * 32 for side in size)
    take_step(mask_rcnn, copy.deepcopy(batch))
    with torch.no_grad():
        predicted = mask_rcnn.eval().test_step(batch)[0].pred_instances
    # At the size of the original, in which the boxes lie.
    assert predicted.masks.shape[1:] == (61, 75)
    assert len(predicted) == 5
    assert (predicted.bboxes >= 0).all()
    assert (predicted.bboxes <= torch.tensor([75.0, 61.0, 75.0, 61.0])).all()


@pytest.mark.parametrize('size', [(20, 24), (7, 100), (33, 65), (31, 32)])
def test_segmentor_takes_small_and_odd_images(ade, sem_fpn, size):
    load_image, load_label_map = label_map_pipeline()
    resize = dict(type='Resize', scale=size[::-1], keep_ratio=False)
    pack = dict(type='mmseg.PackSegInputs')
    train = ade20k_dataset(ade, [load_image, load_label_map, resize, pack])
    # Training pads to the crop what is smaller.
    sem_fpn.data_preprocessor.size = (65, 129)
    take_step(sem_fpn, pseudo_collate([train[0], train[1]]))
    test = [load_image, resize, dict(type='mmseg.ResizeToMultiple', size_divisor=32), load_label_map, pack]
    batch = pseudo_collate([ade20k_dataset(ade, test, test_mode=True)[0]])
    assert all(side % 32 == 0 for side in batch['inputs'][0].shape[1:])
    with torch.no_grad():
        predicted = sem_fpn.eval().test_step(batch)[0].pred_sem_seg.data
    assert predicted.shape == (1, 61, 75)
    assert predicted.max() < 150


def test_images_below_a_cell_are_refused_with_their_size_where_nothing_pads_them(sem_fpn):
    with pytest.raises(ValueError, match=r'at least 32 x 32 pixels .* but got 20 x 24'):
        sem_fpn.backbone(torch.rand(1, 3, 20, 24))


def test_label_map_of_nothing_but_ignored_trains(ade, sem_fpn):
    rewrite(label_map_path(ade), lambda values: values.fill(0))
    batch = pseudo_collate([ade20k_dataset(ade, [*label_map_pipeline(), dict(type='mmseg.PackSegInputs')])[0]])
    sem_fpn.data_preprocessor.size = (64, 96)
    assert compute_losses(sem_fpn, batch)[1]['decode.loss_ce'] == 0
