"""Class folders that mmpretrain would number wrongly are refused before training, files that it leaves out named."""

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmpretrain.datasets import CustomDataset
from reported import warnings_told

from smmix_mm.datasets.image_folders import EXTENSIONS
from smmix_mm.datasets.layout import check_data_layout

LOADERS = ('train_dataloader', 'val_dataloader')


def write(root, **splits):
    """Real pictures, two in each class; of a class with an ending, `cat:.webp`, under that ending."""
    for split, names in splits.items():
        for name in names.split():
            name, _, ending = name.partition(':')
            folder = root / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for index in range(0 if ending == 'empty' else 2):
                picture = cv2.imencode('.png', np.full((4, 4, 3), index, dtype=np.uint8))[1]
                (folder / f'{index}{ending or ".png"}').write_bytes(picture.tobytes())
    return root


def config(root, num_classes=None, kind='mmpretrain.CustomDataset', **dataset):
    def loader(split):
        return dict(dataset=dict(type=kind, data_root=str(root), data_prefix=split) | dataset)

    cfg = dict(train_dataloader=loader('train'), val_dataloader=loader('val'), test_dataloader=loader('val'))
    if num_classes:
        cfg['model'] = dict(head=dict(num_classes=num_classes))
    return cfg


def refusal(cfg, loaders=LOADERS):
    with pytest.raises(ValueError) as error:
        check_data_layout(cfg, loaders)
    return str(error.value)


def test_equal_folders_pass(tmp_path):
    write(tmp_path, train='cat dog owl', val='cat dog owl')
    with warnings_told() as told:
        check_data_layout(config(tmp_path, 3), (*LOADERS, 'test_dataloader'))
        check_data_layout(config(tmp_path, 3, classes=['cat', 'dog', 'owl']), LOADERS)
        # Names for display.
        check_data_layout(config(tmp_path, 3, metainfo=dict(classes=('a', 'b', 'c'))), LOADERS)
        check_data_layout(config(tmp_path, 3, data_prefix=dict(img_path='train')), LOADERS)
    assert not told


@pytest.mark.parametrize(
    ('val', 'faults'),
    [
        ('cat owl', ['lacks dog']),
        ('cat dog fox owl', ['has fox in addition']),
        ('cat dgo owl', ['lacks dog', 'has dgo in addition']),
        ('cat Dog owl', ['lacks dog', 'has Dog in addition']),
    ],
)
@pytest.mark.parametrize('classes', [None, ['cat', 'dog', 'owl']])
def test_folders_that_differ_are_refused(tmp_path, val, faults, classes):
    write(tmp_path, train='cat dog owl', val=val)
    text = refusal(config(tmp_path, classes=classes))
    assert f'the class folders of {tmp_path}/val, which val_dataloader.dataset reads, differ' in text
    assert f'from those of {tmp_path}/train, which train_dataloader.dataset reads: ' in text
    assert f'the former {" and ".join(faults)}.' in text
    assert 'classes=[...] in both' in text


def test_mmpretrain_numbers_the_folders_of_each_split_by_themselves(tmp_path):
    """The ground of the refusal: it does so with `classes` too."""
    write(tmp_path, train='cat dog', val='dog owl')
    train, val = (CustomDataset(str(tmp_path), split, classes=['cat', 'dog']) for split in ('train', 'val'))
    assert train.folder_to_idx['dog'] == 1
    assert val.folder_to_idx['dog'] == 0


def test_empty_folder_stands_for_a_class_outside_training(tmp_path):
    write(tmp_path, train='cat dog owl', val='cat dog:empty owl')
    check_data_layout(config(tmp_path, 3), LOADERS)
    dataset = CustomDataset(str(tmp_path), 'val')
    assert dataset.folder_to_idx == dict(cat=0, dog=1, owl=2)


def test_empty_folder_is_refused_in_training(tmp_path):
    write(tmp_path, train='cat dog:empty owl', val='cat dog owl')
    text = refusal(config(tmp_path))
    assert f'class folder {tmp_path}/train/dog, which train_dataloader.dataset reads, holds no images' in text


@pytest.mark.parametrize('name', ['.ipynb_checkpoints', '.ipynb_checkpoints:empty'])
@pytest.mark.parametrize('split', ['train', 'val'])
def test_hidden_folder_is_refused(tmp_path, name, split):
    write(tmp_path, train='cat dog', val='cat dog')
    write(tmp_path, **{split: name})
    assert CustomDataset(str(tmp_path), split).folder_to_idx == {'.ipynb_checkpoints': 0, 'cat': 1, 'dog': 2}
    text = refusal(config(tmp_path))
    assert f'{tmp_path}/{split}, which {split}_dataloader.dataset reads, holds the hidden folders .ipynb_chec' in text


def test_testing_compares_with_the_training_folders_that_are_there(tmp_path):
    write(tmp_path, train='cat dog owl', val='cat owl')
    cfg = config(tmp_path)
    text = refusal(cfg, ['test_dataloader'])
    assert 'which test_dataloader.dataset reads, differ' in text
    assert 'lacks dog' in text
    for gone in (None, dict(dataset=dict(cfg['train_dataloader']['dataset'], data_root='/gone'))):
        check_data_layout(cfg | dict(train_dataloader=gone), ['test_dataloader'])


@pytest.mark.parametrize(
    ('path', 'value'),
    [('head', 2), ('head', 5), ('head.loss', 10), ('data_preprocessor', 2)],
)
def test_model_for_another_number_of_classes_is_refused(tmp_path, path, value):
    write(tmp_path, train='cat dog owl', val='cat dog owl')
    cfg = config(tmp_path, 3)
    cfg['model'].update(data_preprocessor=dict(num_classes=3))
    cfg['model']['head']['loss'] = dict(num_classes=3)
    check_data_layout(cfg, LOADERS)
    settings = cfg['model']
    for step in path.split('.'):
        settings = settings[step]
    settings['num_classes'] = value
    text = refusal(cfg)
    assert text.startswith(f'model.{path}.num_classes is {value}; but {tmp_path}/train, which train_dataloader.dataset')
    assert 'has 3 classes: cat, dog, owl. Set it to 3' in text


def test_every_setting_that_does_not_fit_is_named(tmp_path):
    write(tmp_path, train='cat dog', val='cat dog')
    cfg = config(tmp_path, 1000) | dict(data_preprocessor=dict(num_classes=1000))
    for form in (cfg, Config(cfg)):
        text = refusal(form)
        assert text.startswith('model.head.num_classes is 1000, data_preprocessor.num_classes is 1000; but ')


def test_given_classes_of_another_number_or_order_are_refused(tmp_path):
    write(tmp_path, train='cat dog owl', val='cat dog owl')
    text = refusal(config(tmp_path, classes=['cat', 'dog']))
    assert 'holds 3 class folders, cat, dog, owl, but classes names 2 classes, cat, dog.' in text
    text = refusal(config(tmp_path, metainfo=dict(classes=['dog', 'cat', 'owl'])))
    assert 'holds the class folders cat, dog, owl, but classes names them as dog, cat, owl.' in text
    assert "set classes=['cat', 'dog', 'owl']" in text


def test_classes_from_a_file(tmp_path):
    write(tmp_path, train='cat dog owl', val='cat dog owl')
    (tmp_path / 'names.txt').write_text('cat\ndog\nowl\n')
    check_data_layout(config(tmp_path, classes=str(tmp_path / 'names.txt')), LOADERS)
    (tmp_path / 'names.txt').write_text('cat\ndog\n')
    assert 'classes names 2 classes, cat, dog' in refusal(config(tmp_path, classes=str(tmp_path / 'names.txt')))
    text = refusal(config(tmp_path, classes='cat'))
    assert "train_dataloader.dataset.classes is 'cat', which is not a file" in text
    assert "('cat',)" in text


def test_imagenet_of_few_folders_is_refused(tmp_path):
    synsets = 'n01440764 n07714571'
    write(tmp_path, train=synsets, val=synsets)
    text = refusal(config(tmp_path, 1000, 'mmpretrain.ImageNet'))
    assert 'holds 2 class folders, n01440764, n07714571, but its type has 1000 classes' in text
    assert "type='mmpretrain.CustomDataset'" in text
    # As `split` finds them, and with lists, which give the labels.
    splits = {f'{name}_dataloader': dict(split=name, data_prefix='') for name in ('train', 'val')}
    cfg = config(tmp_path, 1000, 'ImageNet')
    for loader, settings in splits.items():
        cfg[loader]['dataset'].update(settings)
    assert 'its type has 1000 classes' in refusal(Config(cfg))
    (tmp_path / 'meta').mkdir()
    for split in ('train', 'val'):
        (tmp_path / f'meta/{split}.txt').write_text('n01440764/0.png 0\n')
    check_data_layout(cfg, LOADERS)


def test_lists_and_unlabelled_pictures_need_no_class_folders(tmp_path):
    write(tmp_path, train='cat dog .hidden', val='cat')
    for folder in ('train', 'val'):
        (tmp_path / folder / 'one.jpg').touch()
    (tmp_path / 'list.txt').write_text('one.jpg 4\n')
    check_data_layout(config(tmp_path, 5, ann_file='list.txt'), LOADERS)
    check_data_layout(config(tmp_path, 5, with_label=False), LOADERS)
    check_data_layout(config(tmp_path, 5, 'my_package.CustomDataset'), LOADERS)


@pytest.mark.parametrize('ending', ['.webp', '.tiff', '.gif', '.jfif', '.WEBP'])
def test_class_whose_files_are_not_read_is_refused(tmp_path, ending):
    write(tmp_path, train=f'cat dog:{ending}', val='cat dog')
    text = refusal(config(tmp_path))
    assert f'class folder {tmp_path}/train/dog, which train_dataloader.dataset reads, holds 2 pictures' in text
    assert f'0{ending}, 1{ending}' in text
    assert f'train_dataloader.dataset.extensions={(*EXTENSIONS, ending.lower())}' in text
    check_data_layout(config(tmp_path, extensions=(*EXTENSIONS, ending.lower())), LOADERS)


def test_some_files_that_are_not_read_are_warned_of(tmp_path):
    write(tmp_path, train='cat dog', val='cat dog')
    write(tmp_path, train='cat:.webp dog:.gif')
    (tmp_path / 'train/cat/notes.txt').touch()
    with warnings_told() as told:
        check_data_layout(config(tmp_path, 2), LOADERS)
    (line,) = told
    assert line.startswith(f'4 pictures in {tmp_path}/train, which train_dataloader.dataset reads, are left out: cat/0')
    assert 'cat/0.webp, cat/1.webp, dog/0.gif, dog/1.gif;' in line
    assert f'extensions={(*EXTENSIONS, ".gif", ".webp")}' in line
    assert len(CustomDataset(str(tmp_path), 'train')) == 4


def test_case_of_endings_does_not_matter(tmp_path):
    write(tmp_path, train='cat:.JPG dog:.Png', val='cat dog')
    with warnings_told() as told:
        check_data_layout(config(tmp_path, 2), LOADERS)
    assert not told
    assert len(CustomDataset(str(tmp_path), 'train')) == 4
    assert tuple(sorted(EXTENSIONS)) == tuple(sorted(CustomDataset(str(tmp_path), 'train').extensions))
