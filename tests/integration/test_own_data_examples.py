"""The worked examples of docs/own_data.md, and the programs that check such data."""

import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image
from processes import run
from shapes import DOCUMENT, draw_shapes, write_class_values, write_lists

from smmix_mm.datasets.layout import check_data_layout
from smmix_mm.datasets.own_data import complete_own_data

ROOT = Path(__file__).resolve().parents[2]
CONVERTERS = ROOT / 'tools/dataset_converters'


@pytest.fixture
def shapes(tmp_path, monkeypatch):
    return draw_shapes(tmp_path, monkeypatch)


@pytest.fixture
def convert(monkeypatch, capsys):
    """Runs a converter in this process: ``convert(tool, *args)`` returns its exit status and what it printed."""
    monkeypatch.syspath_prepend(str(CONVERTERS))

    def call(tool: str, *args: object) -> tuple[int, str]:
        with monkeypatch.context() as patch:
            patch.setattr(sys, 'argv', [tool, *map(str, args)])
            try:
                runpy.run_path(str(CONVERTERS / tool), run_name='__main__')
            except SystemExit as error:
                return (error.code, capsys.readouterr().out) if isinstance(error.code, int) else (1, error.code)
        return 0, capsys.readouterr().out

    return call


def read_table(output: str) -> dict[str, list[str]]:
    """The rows of a report by their names."""
    rows = re.findall(r'^(\S.*?)((?: {2,}(?:\d+(?: to \d+)?|-))+)$', output, re.MULTILINE)
    return {name: re.split(' {2,}', cells.strip()) for name, cells in rows}


def read_commands(section: str) -> list[tuple[dict[str, str], list[str]]]:
    """The commands below a heading of the page: variables, and the program of ``tools/`` with its arguments."""
    text = DOCUMENT.read_text().split(f'\n## {section}\n')[1].split('\n## ')[0]
    (block,) = re.findall(r'```bash\n(.*?)```', text, re.DOTALL)
    commands = []
    for line in block.replace('\\\n', ' ').splitlines():
        words = shlex.split(line)
        start = words.index('python')
        commands.append((dict(word.split('=', 1) for word in words[:start]), words[start + 1 :]))
    return commands


@pytest.mark.slow
@pytest.mark.usefixtures('shapes')
def test_worked_examples(tmp_path):
    """All commands of the page, one after another, on its data; only the folders are others."""
    logs = []
    for section in ('Images in folders', "Annotations in COCO's format", 'Masks'):
        for environment, (tool, *args) in read_commands(section):
            if tool == 'tools/test.py':
                args += ['--work-dir', 'work_dirs/test']
            moved = [re.sub(r'^(data|work_dirs)/', rf'{tmp_path}/\1/', arg) for arg in args]
            variables = {
                key: re.sub(r'^(data|work_dirs)/', rf'{tmp_path}/\1/', value) for key, value in environment.items()
            }
            done = run(tool.removeprefix('tools/'), *moved, **variables)
            logs.append(done.stdout + done.stderr)
    assert '2 classes: disc, square' in logs[1]
    assert 'accuracy/top1' in logs[2]
    assert 'loaded 102 of 109 tensors' in logs[4]
    assert 'mIoU' in logs[-1]
    # Other scripts get the counts from the config that a run writes down.
    (path,) = (tmp_path / 'work_dirs/shapes').glob('pvt-mini*.py')
    written = Config.fromfile(path)
    assert written.model.head.num_classes == 2
    assert [*written.train_dataloader.dataset.metainfo.classes] == ['disc', 'square']
    assert written.train_dataloader.dataset.data_root == f'{tmp_path}/data/shapes/folders'


@pytest.mark.parametrize('name', ['own-config', 'own-backbone', 'split-folders'])
def test_config_of_the_page(shapes, tmp_path, monkeypatch, name):
    (example,) = re.findall(rf'<!-- example: {name} -->\n```python\n(.*?)```', DOCUMENT.read_text(), re.DOTALL)
    if name != 'split-folders':
        shutil.copytree(shapes / 'coco', tmp_path / 'data/pets')
    else:
        for split in ('train', 'val'):
            shutil.copytree(shapes / 'folders', tmp_path / 'data/pets' / split)
    (tmp_path / 'mine.py').write_text(example.replace("'configs/", f"'{ROOT}/configs/"))
    monkeypatch.chdir(tmp_path)
    cfg = Config.fromfile('mine.py')
    complete_own_data(cfg)
    check_data_layout(cfg, ('train_dataloader', 'val_dataloader'))
    datasets = [cfg[f'{kind}_dataloader'].dataset for kind in ('train', 'val', 'test')]
    assert [dataset.data_root for dataset in datasets] == ['data/pets'] * 3
    assert [dataset.metainfo.classes for dataset in datasets] == [('disc', 'square')] * 3
    if name == 'own-backbone':
        stock = Config.fromfile(ROOT / 'configs/mask_rcnn/mask-rcnn_swin-tiny_fpn_1x_coco.py').model
        assert (cfg.model.backbone, cfg.model.neck) == (stock.backbone, stock.neck)


def test_folders_are_split_and_described(shapes, convert):
    root = shapes / 'folders'
    (root / '.hidden').mkdir()
    code, out = convert('own_folders.py', '--data-root', root)
    assert code == 0, out
    assert not [*root.glob('*.txt')]
    code, out = convert('own_folders.py', '--data-root', root, '--split', 0.25)
    assert code == 0, out
    assert convert('own_folders.py', '--data-root', root) == (0, out)
    table = read_table(out)
    assert table['images'] == ['32', '24', '8']
    assert table['disc'] == table['square'] == ['16', '12', '4']
    assert table['width'] == ['64 to 64', '-', '-']
    parts = {part: (root / f'{part}.txt').read_text().splitlines() for part in ('train', 'val')}
    listed = sorted([*parts['train'], *parts['val']])
    assert listed == sorted(
        f'{kind}/{path.name} {label}'
        for label, kind in enumerate(('disc', 'square'))
        for path in (root / kind).iterdir()
    )
    assert (root / 'classes.txt').read_text() == 'disc\nsquare\n'
    code, out = convert('own_folders.py', '--data-root', root, '--split', 0.25)
    assert code == 1
    assert 'delete them to split anew' in out
    # The split depends on the seed alone.
    for path in root.glob('*.txt'):
        path.unlink()
    convert('own_folders.py', '--data-root', root, '--split', 0.25, '--seed', 1)
    assert (root / 'val.txt').read_text().splitlines() != parts['val']


def test_faulty_images_and_copies_are_left_out_of_the_lists(shapes, convert):
    root = shapes / 'folders'
    names = {kind: sorted(path.name for path in (root / kind).iterdir()) for kind in ('disc', 'square')}
    broken = root / 'disc' / names['disc'][0]
    broken.write_bytes(broken.read_bytes()[:90])
    shutil.copy(root / 'disc' / names['disc'][1], root / 'disc/copy.png')
    shutil.copy(root / 'disc' / names['disc'][2], root / 'square/conflict.png')
    code, out = convert('own_folders.py', '--data-root', root, '--split', 0.2)
    assert code == 0, out
    assert f'left out: {root}: 1 files have errors: disc/{names["disc"][0]} cannot be read' in out
    assert '1 files are copies of others: ' in out
    assert '1 files are copies of others in another class: square/conflict.png = disc/' in out
    listed = {line.rpartition(' ')[0] for part in ('train', 'val') for line in (root / f'{part}.txt').open()}
    assert {f'disc/{names["disc"][index]}' for index in (0, 2)} & listed == set()
    assert 'square/conflict.png' not in listed
    assert len({'disc/copy.png', f'disc/{names["disc"][1]}'} & listed) == 1
    assert len(listed) == 32 - 2
    code, out = convert('own_folders.py', '--data-root', root)
    assert code == 1
    assert '4 images are in no list' in out
    with (root / 'val.txt').open('a') as file:
        file.write('\n')
    code, out = convert('own_folders.py', '--data-root', root)
    assert 'is blank' in out
    (root / 'val.txt').unlink()
    code, out = convert('own_folders.py', '--data-root', root)
    assert code == 1
    assert 'val.txt: does not exist' in out


@pytest.mark.parametrize(
    ('change', 'named'),
    [
        (lambda root: shutil.rmtree(root / 'disc'), 'holds 1 class folders, but needs at least 2'),
        (lambda root: (root / 'empty').mkdir(), 'empty: is a class without images'),
        (
            lambda root: [(root / old).rename(root / new) for old, new in (('disc', 'train'), ('square', 'val'))],
            'holds train and val, which are parts and no classes',
        ),
        (
            lambda root: [path.rename(path.with_suffix('.webp')) for path in root.glob('disc/*')],
            '16 pictures are',
        ),
        (lambda root: [path.unlink() for path in sorted((root / 'disc').iterdir())[1:]], r"\['disc \(1\)'\] have not"),
        (shutil.rmtree, 'does not exist'),
    ],
)
def test_folders_that_cannot_be_split(shapes, convert, change, named):
    root = shapes / 'folders'
    change(root)
    code, out = convert('own_folders.py', '--data-root', root, '--split', 0.2)
    assert code == 1
    assert re.search(named, out)
    assert not [*root.glob('*.txt')]


def test_only_ten_are_named_and_all_are_counted(shapes, convert):
    write_lists(shapes)
    for path in (shapes / 'folders/disc').iterdir():
        path.write_bytes(path.name.encode())
    code, out = convert('own_folders.py', '--data-root', shapes / 'folders')
    assert code == 1
    assert out.count('cannot be read') == 10
    assert '16 files have errors' in out
    assert 'and 6 more' in out


def test_own_annotations_are_described(shapes, convert):
    root = shapes / 'coco'
    code, out = convert('own_coco.py', '--data-root', root)
    assert code == 0, out
    table = read_table(out)
    assert table['images'] == table['opened'] == table['annotations'] == ['24', '8']
    assert table['objects: disc'] == table['objects: square'] == ['12', '4']
    shutil.copy(root / 'train/0.png', root / 'val/0.png')
    (root / 'val/3.png').unlink()
    path = root / 'annotations/instances_val.json'
    path.write_text(path.read_text().replace('"category_id": 40', '"category_id": 41', 1))
    code, out = convert('own_coco.py', '--data-root', root)
    assert code == 1
    assert f'{root}/val: 1 images are missing: 3.png' in out
    assert f'1 files are copies of others: {root}/val/0.png = {root}/train/0.png' in out
    assert f'{path}: 1 annotations whose category_id is not among the categories; ids: 1' in out


def test_values_of_masks_are_written_and_checked(shapes, convert):
    root = shapes / 'masks'
    assert convert('own_masks.py', '--data-root', root)[0] == 1
    code, out = convert('own_masks.py', '--data-root', root, '--write-values', '--ignored', 11)
    assert code == 0, out
    lines = (root / 'class_values.txt').read_text()
    assert lines == '0 class 0\n11 ignored\n100 class 1\n200 class 2\n'
    assert convert('own_masks.py', '--data-root', root, '--write-values')[0] == 1
    code, out = convert('own_masks.py', '--data-root', root)
    assert code == 0, out
    table = read_table(out)
    assert table['images'] == table['masks'] == table['masks with ignored'] == ['24', '8']
    assert table['masks with class 1'] == ['12', '4']


def test_faults_of_masks_are_named(shapes, convert):
    write_class_values(shapes)
    root = shapes / 'masks'
    masks, images = root / 'ann_dir/train', root / 'img_dir/train'
    (masks / '0.png').unlink()
    (images / '1.png').unlink()
    Image.new('L', (64, 64), 9).save(masks / '2.png')
    Image.new('L', (32, 64)).save(masks / '3.png')
    (masks / '4.png').write_bytes(b'no image')
    shutil.copy(images / '6.png', root / 'img_dir/val/6.png')
    (root / 'class_values.txt').open('a').write('77 star\n')
    code, out = convert('own_masks.py', '--data-root', root)
    assert code == 1
    for fault in (
        f'{images}: 1 images have no mask: 0',
        f'{masks}: 1 masks have no image: 1',
        f'{images}: 3 files have errors: 2 has a mask with values that class_values.txt does not have: [9]',
        '3 has 64 x 64 pixels, but its mask 32 x 64',
        '4 has a mask that cannot be read',
        f'{masks}: 1 classes never occur: star',
        f'1 images are copies of others: {root}/img_dir/val/6.png = {images}/6.png',
    ):
        assert fault in out


def test_colours_of_masks_are_written(shapes, convert):
    root = shapes / 'masks'
    colours = np.array([(0, 0, 0), (9, 8, 7), (9, 8, 255), (255, 255, 255)], dtype=np.uint8)
    for path in root.glob('ann_dir/*/*.png'):
        values = np.searchsorted([0, 11, 100, 200], np.asarray(Image.open(path)))
        Image.fromarray(colours[values]).save(path)
    code, out = convert('own_masks.py', '--data-root', root, '--write-values', '--ignored', '9,8,7')
    assert code == 0, out
    lines = (root / 'class_values.txt').read_text()
    assert lines == '0 0 0 class 0\n9 8 7 ignored\n9 8 255 class 1\n255 255 255 class 2\n'
    assert convert('own_masks.py', '--data-root', root)[0] == 0
