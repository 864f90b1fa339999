"""Configs of own data are filled in from the data, and faulty data is refused before training."""

import copy
import functools
import importlib
import json
import os
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image
from processes import run
from shapes import draw_shapes, write_class_values, write_lists

from smmix_mm.apis.pictures import read_config as read_inferencer_config
from smmix_mm.datasets.layout import check_data_layout
from smmix_mm.datasets.own_data import LOADERS, check_own_data, complete_own_data
from smmix_mm.engine import build_model, complete_dataloaders

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = 'pvt-mini_smmix_1xb8-8e_own-64'
COCO = 'mask-rcnn_pvt-mini_fpn_1xb4-3e_own-160x128'
MASKS = 'fpn_pvt-mini_1xb8-300_own-128x128'


@pytest.fixture
def shapes(tmp_path, monkeypatch):
    root = draw_shapes(tmp_path, monkeypatch)
    write_lists(root)
    write_class_values(root)
    return root


@functools.cache
def read_once(name: str) -> Config:
    return Config.fromfile(ROOT / f'configs/own_data/{name}.py')


def read(name: str, data_root: str | Path, **options) -> Config:
    cfg = copy.deepcopy(read_once(name))
    cfg.merge_from_dict({'data_root': str(data_root), **options})
    return cfg


def check(cfg: Config, loaders=LOADERS) -> Config:
    """As tools/train.py and tools/test.py do."""
    complete_own_data(cfg)
    complete_dataloaders(cfg)
    check_data_layout(cfg, loaders)
    check_own_data(cfg, loaders)
    return cfg


def test_classifier_of_own_folders(shapes):
    cfg = check(read(FOLDERS, shapes / 'folders'))
    assert cfg.model.head.num_classes == cfg.data_preprocessor.num_classes == 2
    assert cfg.val_evaluator.topk == cfg.test_evaluator.topk == (1,)
    assert build_model(cfg).head.fc.out_features == 2
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    assert dataset.metainfo['classes'] == ('disc', 'square')
    assert sorted(dataset.get_gt_labels().tolist()) == [0] * 4 + [1] * 4
    # Once more, as with the config that a run writes down.
    assert check(Config(cfg.to_dict())).to_dict() == cfg.to_dict()


def test_inferencers_and_programs_fill_in_the_classes(shapes, tmp_path):
    """Also of a completed config whose data is not there."""
    options = {f'{loader}.dataset.data_root': str(shapes / 'folders') for loader in LOADERS}
    incomplete = read(FOLDERS, shapes / 'folders', **options)
    cfg = read_inferencer_config(incomplete, 'weights.pth')
    assert cfg.model.head.num_classes == 2
    assert incomplete.model.head.num_classes == 10
    (tmp_path / 'own.py').write_text(incomplete.pretty_text)
    assert read_inferencer_config(tmp_path / 'own.py', 'weights.pth').to_dict() == cfg.to_dict()
    done = run('analysis_tools/get_flops.py', tmp_path / 'own.py', '--shape', 32)
    assert 'Parameters: 0.43 M' in done.stdout
    for loader in LOADERS:
        cfg[loader].dataset.data_root = str(tmp_path / 'gone')
    assert read_inferencer_config(cfg, 'weights.pth').model.head.num_classes == 2


def test_methods_are_compared_on_own_data(shapes, monkeypatch):
    """The classes of the data are in the criterion of the method and in the teacher too."""
    monkeypatch.syspath_prepend(ROOT / 'tools/benchmarks')
    compare = importlib.import_module('compare')
    config = ROOT / f'configs/own_data/{FOLDERS}.py'
    options = ['--methods', 'tokenmix', '--model', config, '--cfg-options', f'data_root={shapes / "folders"}']
    monkeypatch.setattr(sys, 'argv', ['compare.py', *map(str, options)])
    cfg = compare.build_config('tokenmix', 0, 'teacher.pth', compare.parse_args())
    assert cfg.model.head.num_classes == cfg.model.teacher.head.num_classes == 2
    assert cfg.model.head.loss.loss_weight == 1 / 2


@pytest.mark.parametrize('name', [COCO, 'retinanet_pvt-tiny_fpn_1xb2-12e_own'])
def test_detector_of_own_categories(shapes, name):
    cfg = check(read(name, shapes / 'coco'))
    heads = [cfg.model.roi_head.bbox_head, cfg.model.roi_head.mask_head] if name == COCO else [cfg.model.bbox_head]
    assert [head.num_classes for head in heads] == [2] * len(heads)
    assert cfg.val_evaluator.ann_file == cfg.test_evaluator.ann_file == f'{shapes}/coco/annotations/instances_val.json'
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    # Of the ids 7 and 40.
    labels = [dataset.get_data_info(index)['instances'][0]['bbox_label'] for index in range(4)]
    assert labels == [0, 1, 0, 1]


def test_one_of_the_categories(shapes):
    options = {'val_dataloader.dataset.metainfo': dict(classes=('square',))}
    cfg = check(read(COCO, shapes / 'coco', **options))
    assert cfg.model.roi_head.bbox_head.num_classes == 1
    assert {cfg[loader].dataset.metainfo.classes for loader in LOADERS} == {('square',)}


def test_datasets_that_name_different_classes_are_refused(shapes):
    names = {'train_dataloader': ('disc', 'square'), 'val_dataloader': ('square', 'disc')}
    options = {f'{loader}.dataset.metainfo': dict(classes=classes) for loader, classes in names.items()}
    with pytest.raises(ValueError, match=r'the classes of val_dataloader\.dataset differ from those of train'):
        check(read(FOLDERS, shapes / 'folders', **options))


def test_segmentor_of_own_masks(shapes):
    cfg = check(read(MASKS, shapes / 'masks'))
    assert cfg.model.decode_head.num_classes == 3
    assert build_model(cfg).decode_head.conv_seg.out_channels == 3
    for loader in LOADERS:
        dataset = cfg[loader].dataset
        (load,) = (step for step in dataset.pipeline if step.type.endswith('LoadLabelMap'))
        assert (load.num_classes, load['values'], load.ignored) == (3, [0, 100, 200], [11])
        assert (dataset.img_suffix, dataset.seg_map_suffix) == ('.png', '.png')
    init_default_scope('mmseg')
    sample = DATASETS.build({**cfg.val_dataloader.dataset})[1]
    label_map = sample['data_samples'].gt_sem_seg.data.numpy()[0]
    mask = np.asarray(Image.open(shapes / 'masks/ann_dir/val/1.png'))
    assert label_map.tolist() == np.select([mask == 0, mask == 100, mask == 200], [0, 1, 2], 255).tolist()
    assert {*np.unique(label_map)} == {0, 2, 255}


def test_classes_that_are_not_named_are_ignored(shapes):
    options = {'train_dataloader.dataset.metainfo': dict(classes=['square', 'background'])}
    cfg = check(read(MASKS, shapes / 'masks', **options))
    (load,) = (step for step in cfg.train_dataloader.dataset.pipeline if step.type.endswith('LoadLabelMap'))
    assert (load['values'], load.ignored) == ([200, 0], [11, 100])
    options['train_dataloader.dataset.metainfo'] = dict(classes=['square', 'cat'])
    with pytest.raises(ValueError, match=r'names cat, of which .*class_values\.txt says no value'):
        complete_own_data(read(MASKS, shapes / 'masks', **options))


def test_top_5_stays_where_there_are_as_many_classes(shapes):
    for name in ('bar', 'cross', 'star'):
        (shapes / 'folders' / name).mkdir()
    (shapes / 'folders/classes.txt').write_text('disc\nsquare\nbar\ncross\nstar\n')
    cfg = read(FOLDERS, shapes / 'folders')
    complete_own_data(cfg)
    assert cfg.val_evaluator.topk == (1, 5)
    assert cfg.model.head.num_classes == 5


@pytest.mark.parametrize('name', [COCO, FOLDERS])
def test_the_environment_names_folder_and_weights(monkeypatch, name):
    monkeypatch.setenv('DATA_ROOT', 'own/data')
    monkeypatch.setenv('CHECKPOINT', 'own/epoch_3.pth')
    cfg = Config.fromfile(ROOT / f'configs/own_data/{name}.py')
    assert cfg.data_root == 'own/data'
    # The small classifier starts from random weights.
    assert cfg.model.backbone.init_cfg.get('checkpoint') == (None if name == FOLDERS else 'own/epoch_3.pth')


def test_first_weights_are_those_of_a_run_of_ours():
    for path in sorted((ROOT / 'configs/own_data').glob('*.py')):
        checkpoint = read_once(path.stem).model.backbone.init_cfg.get('checkpoint')
        if path.stem != FOLDERS:
            run = Path(checkpoint).parent.name
            assert [*(ROOT / 'configs').glob(f'*/{run}.py')], path


def test_other_configs_are_left_alone(shapes):
    cfg = read(FOLDERS, shapes / 'folders', own_data=False)
    before = cfg.to_dict()
    complete_own_data(cfg)
    check_own_data(cfg, LOADERS)
    assert cfg.to_dict() == before


def test_without_training_data_those_of_the_test_say_the_classes(shapes):
    (shapes / 'coco/annotations/instances_train.json').unlink()
    cfg = check(read(COCO, shapes / 'coco'), ('test_dataloader',))
    assert cfg.model.roi_head.bbox_head.num_classes == 2


@pytest.mark.parametrize(
    ('change', 'named'),
    [
        (lambda lines: [*lines, ''], 'has 1 of 25 lines .* line 25 is blank'),
        (lambda lines: [*lines, '# end'], "line 25 '# end' does not end with a label from 0 to 1"),
        (lambda lines: [*lines, 'disc/train 0.png 2'], "line 25 'disc/train 0.png 2' does not end with a label"),
        (lambda lines: [*lines, 'disc/train 0.png\t0'], 'line 25 .* does not end with a label'),
        (lambda lines: [*lines, 'disc/gone.png 0'], "line 25 names 'disc/gone.png', which is not a file"),
        (lambda lines: [lines[0], lines[0][:-1] + '1'], "line 2 gives 'disc/train .*' the label 1, but .* gives it 0"),
        (lambda lines: [f'no {index}' for index in range(12)], r'12 of 12 .* line 10 .*\(12 in all\)'),
        (lambda lines: [], 'is empty'),
    ],
)
def test_stray_lines_of_lists_are_named(shapes, change, named):
    path = shapes / 'folders/train.txt'
    path.write_text(''.join(f'{line}\n' for line in change(path.read_text().splitlines())))
    with pytest.raises(ValueError, match=r'train\.txt, which train_dataloader') as error:
        check(read(FOLDERS, shapes / 'folders'))
    assert error.match(named)


def test_a_list_that_is_not_there_or_not_text_is_named(shapes):
    path = shapes / 'folders/train.txt'
    path.write_bytes('disc/Übung.png 0\n'.encode('latin-1'))
    with pytest.raises(ValueError, match=r'train\.txt, .* is not text in UTF-8'):
        check(read(FOLDERS, shapes / 'folders'))
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r'train\.txt, the ann_file which train_dataloader'):
        check(read(FOLDERS, shapes / 'folders'))


@pytest.mark.parametrize(('listed', 'stored'), [('NFC', 'NFC'), ('NFC', 'NFD'), ('NFD', 'NFC')])
def test_names_that_are_not_ascii(shapes, listed, stored):
    name = 'Ü 方.png'
    folder = shapes / 'folders'
    (folder / 'disc/train 0.png').rename(folder / 'disc' / unicodedata.normalize(stored, name))
    path = folder / 'train.txt'
    path.write_text(path.read_text().replace('train 0.png', unicodedata.normalize(listed, name)), encoding='utf-8')
    if listed == stored:
        check(read(FOLDERS, folder))
    else:
        with pytest.raises(ValueError, match=f'is not a file .* in the Unicode form {stored}'):
            check(read(FOLDERS, folder))


@pytest.mark.parametrize('task', ['class folders', 'masks'])
def test_names_that_are_not_utf_8_are_refused(shapes, task):
    folder = shapes / ('folders/disc' if task == 'class folders' else 'masks/img_dir/train')
    next(folder.glob('*.png')).rename(os.fsdecode(os.fsencode(folder) + b'/\xff.png'))
    options = {f'{loader}.dataset.ann_file': '' for loader in LOADERS} if task == 'class folders' else {}
    with pytest.raises(ValueError, match=r"xff\.png' is not UTF-8"):
        check(read(FOLDERS if options else MASKS, folder.parents[0 if options else 1], **options))


@pytest.mark.parametrize('name', [FOLDERS, COCO, MASKS])
def test_unreadable_images_are_named(shapes, name):
    root = shapes / {FOLDERS: 'folders', COCO: 'coco', MASKS: 'masks'}[name]
    folder = {FOLDERS: root / 'disc', COCO: root / 'train', MASKS: root / 'img_dir/train'}[name]
    for path in sorted(folder.glob('*.png'))[-2:]:
        path.write_bytes(path.read_bytes()[:80])
    with pytest.raises(ValueError, match=r'2 of .* of .*_dataloader\.dataset cannot be loaded') as error:
        check(read(name, root))
    assert all(str(path) in str(error.value) for path in sorted(folder.glob('*.png'))[-2:])


def test_a_missing_image_of_the_annotations_is_named(shapes):
    (shapes / 'coco/val/3.png').unlink()
    with pytest.raises(ValueError, match=r'1 of 8 samples .* of val_dataloader\.dataset .*\n.*val/3\.png'):
        check(read(COCO, shapes / 'coco'))


def test_objects_without_outline_are_named_where_masks_are_trained(shapes):
    path = shapes / 'coco/annotations/instances_train.json'
    content = json.loads(path.read_text())
    del content['annotations'][5]['segmentation']
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r'1 of 24 samples .*train_dataloader(.|\n)*5\.png .* have no mask'):
        check(read(COCO, shapes / 'coco'))
    check(read('retinanet_pvt-tiny_fpn_1xb2-12e_own', shapes / 'coco'))


@pytest.mark.parametrize(
    ('content', 'named'),
    [
        ('[', 'is not a COCO file'),
        ('[]', 'is not a COCO file'),
        ('{"categories": [{"id": 1}]}', "is not a COCO file .*'name'"),
        ('{"categories": []}', 'names no classes'),
        ('{"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}', 'repeats the classes a'),
    ],
)
def test_annotations_without_categories_are_named(shapes, content, named):
    (shapes / 'coco/annotations/instances_train.json').write_text(content)
    with pytest.raises(ValueError, match=rf'instances_train\.json {named}'):
        complete_own_data(read(COCO, shapes / 'coco'))


def test_faulty_masks_are_named(shapes):
    cfg = read(MASKS, shapes / 'masks')
    folder = shapes / 'masks/ann_dir/train'
    Image.new('L', (64, 64), 9).save(folder / '3.png')
    Image.new('L', (60, 64)).save(folder / '4.png')
    with pytest.raises(ValueError, match='2 of 24 samples') as error:
        check(cfg)
    assert error.match(r'3\.png holds the values \[9\]')
    assert error.match(r'4\.png has the shape \(64, 60\)')
    (folder / '5.png').unlink()
    with pytest.raises(ValueError, match=r'1 of 24 images .* have no label map .*: 5\.png'):
        check(read(MASKS, shapes / 'masks'))


def test_stray_lines_of_a_list_of_masks_are_named(shapes):
    (shapes / 'masks/train.txt').write_text('1\n\n2.png\n3\n')
    options = {'train_dataloader.dataset.ann_file': 'train.txt'}
    with pytest.raises(ValueError, match=r"2 of 4 lines that name no image <line>\.png .*: line 2 '', line 3 '2\.png'"):
        check(read(MASKS, shapes / 'masks', **options))


@pytest.mark.parametrize(
    ('name', 'root', 'named'),
    [
        (FOLDERS, '', 'needs data_root at the top'),
        (FOLDERS, 'gone', r'gone/classes\.txt, .* does not exist: set data_root'),
        (FOLDERS, '.', r'classes\.txt, .* does not exist: write it by tools/dataset_converters/own_folders\.py'),
        (COCO, 'gone', r'gone/annotations/instances_train\.json, .* does not exist: set data_root'),
        (MASKS, 'gone', r'gone/class_values\.txt, .* does not exist'),
    ],
)
def test_missing_data_is_named(name, root, named):
    with pytest.raises((ValueError, FileNotFoundError), match=named):
        complete_own_data(read(name, root))


def test_other_packages_are_refused():
    options = {'train_dataloader.dataset.type': 'my.Data'}
    with pytest.raises(ValueError, match=r'needs datasets of one of mmpretrain, mmdet and mmseg, but got .*my'):
        complete_own_data(read(FOLDERS, 'gone', **options))


def test_one_class_is_not_enough(shapes):
    (shapes / 'folders/classes.txt').write_text('disc\n')
    with pytest.raises(ValueError, match=r"classes\.txt says the classes \('disc',\), but at least 2"):
        complete_own_data(read(FOLDERS, shapes / 'folders'))


def test_counts_that_do_not_fit_are_named_without_filling_in(shapes):
    cfg = check(read(FOLDERS, shapes / 'folders'))
    cfg.model.head.num_classes = 3
    with pytest.raises(ValueError, match=r'model\.head\.num_classes is 3; but train_dataloader\.dataset has 2 classes'):
        check_data_layout(cfg, LOADERS)
