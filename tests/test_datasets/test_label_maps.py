"""Label maps that do not belong to images, or in which a class never occurs, are refused before training."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from dense_folders import write_ade20k
from mmengine.config import Config
from mmseg.datasets import BaseSegDataset
from reported import warnings_told

from smmix_mm.datasets import label_maps
from smmix_mm.datasets.layout import check_data_layout

ROOT = Path(__file__).parents[2]
LOADERS = ('train_dataloader', 'val_dataloader')
NAMES = ('background', 'cell')


def write(root, *values, count=3, suffix='.jpg', split='train'):
    """Pictures whose label maps hold these values, each in a stripe."""
    for kind in ('img', 'ann'):
        (root / kind / split).mkdir(parents=True, exist_ok=True)
    label_map = np.repeat(np.array(values, dtype=np.uint8), 4)[None].repeat(8, axis=0)
    for index in range(count):
        picture = cv2.imencode('.jpg', np.full((*label_map.shape, 3), 99, dtype=np.uint8))[1]
        (root / f'img/{split}/{index}{suffix}').write_bytes(picture.tobytes())
        cv2.imwrite(str(root / f'ann/{split}/{index}.png'), label_map)
    return root


def config(root, classes=NAMES, model=None, split='train', pipeline=(), **dataset):
    settings = dict(
        type='mmseg.BaseSegDataset',
        data_root=str(root),
        data_prefix=dict(img_path=f'img/{split}', seg_map_path=f'ann/{split}'),
        metainfo=dict(classes=classes),
        pipeline=list(pipeline),
    )
    loader = dict(dataset=settings | dataset)
    return {f'{split}_dataloader': loader} | (dict(model=model) if model else {})


def check(cfg):
    check_data_layout(cfg, [loader for loader in cfg if loader.endswith('_dataloader')])


def refusal(cfg):
    with pytest.raises(ValueError) as error:
        check(cfg)
    return str(error.value)


def told(cfg):
    with warnings_told() as lines:
        check(cfg)
    return lines


@pytest.mark.parametrize('values', [(0, 1), (0, 1, 255), (0, 0)])
def test_class_indices_pass(tmp_path, values):
    """A class may be absent where nothing is ignored: the maps may be of another part."""
    assert not told(config(write(tmp_path, *values)))


@pytest.mark.parametrize('classes', [NAMES, ['background', 'cell', 'wall'], tuple(f'class{i}' for i in range(150))])
def test_masks_of_0_and_255_are_refused(tmp_path, classes):
    text = refusal(config(write(tmp_path, 0, 255), classes))
    assert f'3 label maps were checked, such as {tmp_path}/ann/train/0.png, which train_dataloader.dataset' in text
    assert 'They hold only the values 0 and 255, of which 255 is ignored, so that class' in text
    assert f'1 ({classes[1]})' in text
    assert f'Write the classes as the values 0 to {len(classes) - 1} into the label maps' in text


def test_masks_of_0_and_255_of_palette_images_and_single_bits(tmp_path):
    from PIL import Image

    write(tmp_path, 0, 255)
    for path in (tmp_path / 'ann/train').iterdir():
        image = Image.open(path)
        image.putpalette([*range(256)] * 3)
        image.convert('P').save(path)
        assert Image.open(path).mode == 'P'
    assert 'only the values 0 and 255' in refusal(config(tmp_path))
    # Of one bit they hold 0 and 1.
    for path in (tmp_path / 'ann/train').iterdir():
        Image.fromarray(np.eye(8, dtype=bool)).save(path)
    assert not told(config(tmp_path))


def test_absent_class_of_few_is_refused_where_something_is_ignored(tmp_path):
    write(tmp_path, 0, 2, 255)
    text = refusal(config(tmp_path, ('background', 'cell', 'wall')))
    assert 'the values 0, 2, 255, of which 255 is ignored, so that class 1 (cell) never occurs' in text
    # Of many classes one may well be absent.
    assert not told(config(tmp_path, ('background', 'cell', 'wall', 'spot')))


def test_rare_class_is_found(tmp_path):
    """Not in the 20 that are looked at first, which are spread evenly."""
    write(tmp_path, 0, 255, count=60)
    cv2.imwrite(str(tmp_path / 'ann/train/1.png'), np.ones((8, 8), dtype=np.uint8))
    assert not told(config(tmp_path))
    (tmp_path / 'ann/train/1.png').unlink()
    (tmp_path / 'img/train/1.jpg').unlink()
    assert refusal(config(tmp_path)).startswith('59 label maps were checked')


def test_no_more_label_maps_are_read_than_needed(tmp_path, monkeypatch):
    write(tmp_path, 0, 1, 255, count=30)
    opened = []
    open_image = label_maps.Image.open
    monkeypatch.setattr(label_maps.Image, 'open', lambda path: opened.append(Path(path).stem) or open_image(path))
    check(config(tmp_path))
    assert len(set(opened)) == len(opened) == 20
    assert {'0', '9'} <= set(opened)


def test_zero_that_is_ignored(tmp_path):
    write(tmp_path, 0, 1)
    text = refusal(config(tmp_path, reduce_zero_label=True))
    assert 'the values 0 and 1, of which 0 is ignored, so that class 1 (cell) never occurs' in text
    assert 'Write the classes as the values 1 to 2 into the label maps, or set reduce_zero_label=False' in text
    assert 'classes 0 (background), 1 (cell) never occur' in refusal(
        config(write(tmp_path / 'mask', 0, 255), reduce_zero_label=True)
    )
    assert not told(config(write(tmp_path / 'right', 0, 1, 2), reduce_zero_label=True))


def test_validation_is_not_judged_by_its_values(tmp_path):
    assert not told(config(write(tmp_path, 0, 255, split='val'), split='val'))


def test_part_of_the_classes_of_a_type(tmp_path):
    """mmseg ignores the others: here wall (1) and building (2) of ADE20K, of which only the former occurs."""
    write(tmp_path, 0, 1, 4)
    cfg = config(tmp_path, ('wall', 'building'), type='mmseg.ADE20KDataset')
    assert 'so that class 1 (building) never occurs' in refusal(cfg)
    write(tmp_path, 0, 1, 2)
    assert not told(cfg)


def test_image_without_label_map_is_refused_where_it_is_read(tmp_path):
    write(tmp_path, 0, 1, count=5)
    write(tmp_path, 0, 1, count=5, split='val')
    for split in ('train', 'val'):
        for index in (1, 3):
            (tmp_path / f'ann/{split}/{index}.png').unlink()
    text = refusal(config(tmp_path))
    assert f'2 of 5 images in {tmp_path}/img/train, which train_dataloader.dataset reads, have no label map' in text
    assert f'<name>.png in {tmp_path}/ann/train: 1.jpg, 3.jpg' in text
    loading = [dict(type='RandomChoice', transforms=[[dict(type='smmix_mm.LoadLabelMap', num_classes=2)]])]
    assert '2 of 5 images' in refusal(config(tmp_path, split='val', pipeline=loading))
    (line,) = told(config(tmp_path, split='val'))
    assert '2 of 5 images' in line


def test_label_map_without_image_is_warned_of(tmp_path):
    write(tmp_path, 0, 1, count=4)
    (tmp_path / 'img/train/2.jpg').unlink()
    (line,) = told(config(tmp_path))
    assert line.startswith(f'1 label maps in {tmp_path}/ann/train, which train_dataloader.dataset reads, have no image')
    assert line.endswith('2.png')


def test_pictures_of_other_endings_are_warned_of(tmp_path):
    write(tmp_path, 0, 1, count=6)
    for index in range(3):
        path = tmp_path / f'img/train/{index}.jpg'
        path.rename(path.with_suffix('.JPG'))
    (tmp_path / 'img/train/Thumbs.db').touch()
    lines = told(config(tmp_path))
    assert len(BaseSegDataset(data_root=str(tmp_path), data_prefix=dict(img_path='img/train'))) == 3
    assert lines[0].startswith(
        f'3 pictures in {tmp_path}/img/train, which train_dataloader.dataset reads, are left out'
    )
    assert "0.JPG, 1.JPG, 2.JPG. Only files that end with img_suffix, '.jpg', are read" in lines[0]
    assert '3 label maps' in lines[1]
    assert len(lines) == 2


def test_names_with_suffixes_and_folders(tmp_path):
    """As Cityscapes has them; images and label maps in one folder, at different depths."""
    write(tmp_path, 0, 1, suffix='_left.jpg')
    for kind in ('img', 'ann'):
        (tmp_path / kind / 'train/town').mkdir()
        for path in [path for path in (tmp_path / kind / 'train').iterdir() if path.is_file()]:
            path.rename(path.parent / 'town' / path.name)
    assert not told(config(tmp_path, img_suffix='_left.jpg'))
    for path in (tmp_path / 'ann/train/town').iterdir():
        path.rename(tmp_path / 'img/train/town' / path.name)
    together = dict(img_path='img/train', seg_map_path='img/train')
    assert not told(config(tmp_path, img_suffix='_left.jpg', data_prefix=together))


def test_list_of_names_decides(tmp_path):
    write(tmp_path, 0, 1, count=4)
    (tmp_path / 'list.txt').write_text('0\n3\n')
    (tmp_path / 'ann/train/1.png').unlink()
    assert not told(config(tmp_path, ann_file='list.txt'))
    (tmp_path / 'ann/train/3.png').unlink()
    assert '1 of 2 images' in refusal(config(tmp_path, ann_file='list.txt'))


@pytest.mark.parametrize('setting', ['decode_head', 'auxiliary_head', 'auxiliary_head[1]'])
@pytest.mark.parametrize('value', [1, 150])
def test_head_for_another_number_of_classes_is_refused(tmp_path, setting, value):
    write(tmp_path, 0, 1)
    fitting, wrong = dict(num_classes=2), dict(num_classes=value)
    model = dict(decode_head=fitting) | {
        setting.removesuffix('[1]'): [fitting, wrong] if setting.endswith(']') else wrong
    }
    text = refusal(config(tmp_path, model=model))
    assert text.startswith(f'model.{setting}.num_classes is {value}; but train_dataloader.dataset has 2 classes: back')
    check(config(tmp_path, model=dict(decode_head=fitting, auxiliary_head=[fitting, fitting])))


def test_label_loader_for_another_number_of_classes_is_refused(tmp_path):
    write(tmp_path, 0, 1)
    loading = dict(type='smmix_mm.LoadLabelMap', num_classes=150)
    cfg = config(tmp_path, pipeline=[dict(type='RandomChoice', transforms=[[dict(type='Other')], [loading]])])
    setting = 'train_dataloader.dataset.pipeline.0.transforms.1.0.num_classes'
    assert refusal(cfg).startswith(f'{setting} is 150; but train_dataloader.dataset has 2 classes: background, cell. ')
    loading['num_classes'] = 2
    check(cfg)
    wrapped = dict(train_dataloader=dict(dataset=dict(type='RepeatDataset', **cfg['train_dataloader'])))
    check(wrapped)
    loading['num_classes'] = 3
    assert refusal(wrapped).startswith('train_dataloader.dataset.dataset.pipeline.0.transforms.1.0.num_classes is 3; ')


def test_loaders_with_different_classes_are_refused(tmp_path):
    write(tmp_path, 0, 1)
    write(tmp_path, 0, 1, split='val')
    cfg = config(tmp_path) | config(tmp_path, ('cell', 'background'), split='val')
    text = refusal(cfg)
    assert 'the classes of val_dataloader.dataset differ from those of train_dataloader.dataset' in text
    assert "has the order ('cell', 'background'), not ('background', 'cell')" in text
    check(config(tmp_path) | config(tmp_path, list(NAMES), split='val'))


def test_shipped_configs_pass(tmp_path):
    root = write_ade20k(tmp_path / 'ade')
    cfg = Config.fromfile(ROOT / 'configs/sem_fpn/fpn_pvt-tiny_8xb2-80k_ade20k-512x512.py')
    for loader in (*LOADERS, 'test_dataloader'):
        cfg[loader].dataset.data_root = str(root)
    with warnings_told() as lines:
        check_data_layout(cfg, (*LOADERS, 'test_dataloader'))
    assert not lines
    cfg.model.decode_head.num_classes = 151
    with pytest.raises(ValueError, match=r'decode_head\.num_classes is 151; but train_dataloader\.dataset has 150'):
        check_data_layout(cfg, LOADERS)


@pytest.mark.parametrize('config_name', ['mask_rcnn/mask-rcnn', 'sem_fpn/fpn'])
def test_shipped_demos_pass(config_name):
    """Their datasets make their own data."""
    paths = list((ROOT / 'configs').glob(f'{config_name}_pvt-mini*.py'))
    assert len(paths) == 2
    for path in paths:
        check_data_layout(Config.fromfile(path), (*LOADERS, 'test_dataloader'))
