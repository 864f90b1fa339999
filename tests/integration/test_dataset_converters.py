"""The dataset converters as real processes, on real archives and folders."""

import json
import re
import subprocess
import zipfile
from pathlib import Path

import cv2
import numpy as np
import processes
import pytest
from dense_folders import write_ade20k, write_coco
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
COCO_ARCHIVES = {'train2017.zip': 'train2017', 'val2017.zip': 'val2017', 'annotations_trainval2017.zip': 'annotations'}


def run(tool: str, *args: object) -> subprocess.CompletedProcess:
    return processes.run(f'dataset_converters/{tool}', *args, check=False)


def read_table(output: str) -> dict[str, list[int]]:
    """Counts of both splits by their names."""
    return {match[1]: [int(match[2]), int(match[3])] for match in re.finditer(r'^(\S.*?) +(\d+) +(\d+)$', output, re.M)}


def pack(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive, 'w') as opened:
        opened.write(folder, folder.name)
        for path in sorted(folder.rglob('*')):
            opened.write(path, path.relative_to(folder.parent))


def read_tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob('*') if path.is_file()}


@pytest.fixture
def coco(tmp_path):
    return write_coco(tmp_path / 'coco')


@pytest.fixture
def ade(tmp_path):
    return write_ade20k(tmp_path / 'ADEChallengeData2016', counts=(6, 3))


@pytest.fixture
def coco_archives(coco, tmp_path):
    folder = tmp_path / 'archives'
    folder.mkdir()
    for archive, name in COCO_ARCHIVES.items():
        pack(folder / archive, coco / name)
    return folder


def test_coco_is_unpacked_and_verified(coco, coco_archives, tmp_path):
    target = tmp_path / 'data/coco'
    done = run('coco.py', '--archives', coco_archives, '--data-root', target)
    assert done.returncode == 0, done.stdout + done.stderr
    assert read_tree(target) == read_tree(coco)
    # Nothing is left of the unpacking.
    assert sorted(path.name for path in target.iterdir()) == ['annotations', 'train2017', 'val2017']
    annotations = [
        json.loads((coco / f'annotations/instances_{split}2017.json').read_text())['annotations']
        for split in ('train', 'val')
    ]
    table = read_table(done.stdout)
    assert table['images'] == table['opened'] == [4, 2]
    assert table['annotations'] == [len(items) for items in annotations] == [6, 4]
    assert table['crowds'] == [1, 1]
    assert table['images without objects'] == [1, 0]
    assert table['categories'] == [80, 80]
    assert table['images of the original'] == [118287, 5000]
    assert 'no problems' in done.stdout


def test_unpacking_leaves_alone_what_is_there(coco, coco_archives, tmp_path):
    target = tmp_path / 'data/coco'
    (target / 'val2017').mkdir(parents=True)
    (target / 'val2017/mine.jpg').write_bytes(b'mine')
    # An empty folder holds nothing to lose.
    (target / 'train2017').mkdir()
    done = run('coco.py', '--archives', coco_archives, '--data-root', target)
    assert done.returncode == 1
    assert f'{target}/val2017 already exists; val2017.zip is not unpacked' in done.stdout
    assert f'{target}/val2017: 2 images are missing: 000000000000.jpg, 000000000001.jpg' in done.stdout
    assert read_table(done.stdout)['files that are not annotated'] == [0, 1]
    assert read_tree(target / 'val2017') == {'mine.jpg': b'mine'}
    assert read_tree(target / 'train2017') == read_tree(coco / 'train2017')


@pytest.mark.parametrize('damage', ['missing', 'truncated', 'corrupt', 'other'])
def test_unusable_archive_leaves_nothing_behind(coco_archives, tmp_path, damage):
    archive = coco_archives / 'train2017.zip'
    content = archive.read_bytes()
    if damage == 'missing':
        archive.unlink()
    elif damage == 'truncated':
        archive.write_bytes(content[: len(content) // 2])
    elif damage == 'corrupt':
        # In the bytes of a picture, of which the archive keeps a checksum.
        middle = len(content) // 2
        archive.write_bytes(content[:middle] + bytes(64) + content[middle + 64 :])
    else:
        archive.write_bytes((coco_archives / 'val2017.zip').read_bytes())
    target = tmp_path / 'data/coco'
    done = run('coco.py', '--archives', coco_archives, '--data-root', target)
    assert done.returncode == 1
    assert str(archive) in done.stderr
    assert 'Traceback' not in done.stderr
    wanted = {'missing': 'does not exist', 'other': 'has no folder train2017'}.get(damage, 'is truncated or not a zip')
    assert wanted in done.stderr
    assert not target.exists() or not list(target.iterdir())


def test_problems_of_coco_are_named(coco):
    path = coco / 'annotations/instances_train2017.json'
    content = json.loads(path.read_text())
    first, second, _, crowd, fifth, sixth = content['annotations']
    assert crowd['iscrowd']
    del first['segmentation']
    # A crowd needs none.
    del crowd['segmentation']
    second['bbox'][2] = 0
    fifth['category_id'] = 12
    sixth.update(image_id=999, id=fifth['id'])
    content['images'][1]['width'] += 1
    content['categories'].pop()
    path.write_text(json.dumps(content))
    (coco / 'train2017/000000000000.jpg').unlink()
    truncated = coco / 'train2017/000000000003.jpg'
    truncated.write_bytes(truncated.read_bytes()[:700])
    (coco / 'train2017/more.jpg').touch()

    done = run('coco.py', '--data-root', coco)
    assert done.returncode == 1
    out = done.stdout
    assert f'{coco}/train2017: 1 images are missing: 000000000000.jpg' in out
    assert f'{coco}/train2017: 2 files have errors: 000000000001.jpg has 90 x 50 pixels, but 91 x 50 in the' in out
    assert '000000000003.jpg cannot be read' in out
    assert f'{path}: 1 annotations have no segmentation, which Mask R-CNN needs; ids: 1\n' in out
    assert f'{path}: 1 annotations whose category_id is not among the categories; ids: 5\n' in out
    assert f'{path}: 1 annotations whose image_id is not among the images; ids: 5\n' in out
    assert f'{path}: 1 ids are used by several annotations: 5\n' in out
    assert f'{path}: has to hold 80 categories, but holds 79' in out
    assert 'the categories of train2017 and val2017 differ' in out
    table = read_table(out)
    assert table['boxes without area (mmdet drops them)'] == [1, 0]
    assert table['files that are not annotated'] == [1, 0]
    assert f'{len(re.findall("^  /", out, re.M))} problems' in out


@pytest.mark.parametrize('content', ['', '{}', '[]', '{"images": [{"id"', '{"images": [{}], "annotations": [3]}'])
def test_unusable_annotations_of_coco_are_named(coco, content):
    path = coco / 'annotations/instances_val2017.json'
    path.write_text(content)
    done = run('coco.py', '--data-root', coco)
    assert done.returncode == 1
    assert f'{path}: ' in done.stdout
    assert 'Traceback' not in done.stderr


def test_missing_folders_are_named(tmp_path):
    for tool, parts in (
        ('coco.py', ['annotations/instances_train2017.json', 'train2017', 'val2017']),
        ('ade20k.py', ['images/training', 'annotations/validation']),
    ):
        done = run(tool, '--data-root', tmp_path / 'gone')
        assert done.returncode == 1
        for part in parts:
            assert f'{tmp_path}/gone/{part}: does not exist' in done.stdout


def test_ade20k_is_unpacked_and_verified(ade, tmp_path):
    (tmp_path / 'archives').mkdir()
    pack(tmp_path / 'archives/ADEChallengeData2016.zip', ade)
    target = tmp_path / 'data/ade/ADEChallengeData2016'
    done = run('ade20k.py', '--archives', tmp_path / 'archives', '--data-root', target)
    assert done.returncode == 0, done.stdout + done.stderr
    assert read_tree(target) == read_tree(ade)
    assert [path.name for path in target.parent.iterdir()] == ['ADEChallengeData2016']
    table = read_table(done.stdout)
    assert table['images'] == table['opened'] == [6, 3]
    assert table['images of the original'] == [20210, 2000]
    again = run('ade20k.py', '--archives', tmp_path / 'archives', '--data-root', target)
    assert again.returncode == 0
    assert 'already exists' in again.stdout


def test_problems_of_ade20k_are_named(ade):
    images, label_maps = ade / 'images/training', ade / 'annotations/training'
    (label_maps / 'ADE_train_00000000.png').unlink()
    (images / 'ADE_train_00000001.jpg').unlink()
    cv2.imwrite(str(label_maps / 'ADE_train_00000002.png'), np.ones((75, 60), dtype=np.uint8))
    cv2.imwrite(str(label_maps / 'ADE_train_00000003.png'), np.full((64, 70), 151, dtype=np.uint8))
    Image.fromarray(np.full((61, 75), 1000, dtype=np.uint16)).save(label_maps / 'ADE_train_00000004.png')
    truncated = label_maps / 'ADE_train_00000005.png'
    truncated.write_bytes(truncated.read_bytes()[:80])
    done = run('ade20k.py', '--data-root', ade)
    assert done.returncode == 1
    out = done.stdout
    assert f'{images}: 1 images have no label map in {label_maps}: ADE_train_00000000.jpg\n' in out
    assert (
        f'{images}: 4 files have errors: ADE_train_00000002 has the shape (75, 61), but its label map has (75, 60)'
        in out
    )
    assert 'ADE_train_00000003 has a label map with values beyond 150: [151]' in out
    assert 'ADE_train_00000004 has a label map with values beyond 150: [1000]' in out
    assert 'ADE_train_00000005 has a label map that cannot be read' in out
    table = read_table(out)
    assert table['images without label map'] == table['label maps without image'] == [1, 0]
    assert table['opened'] == [4, 3]


def test_only_a_full_look_opens_every_image(tmp_path):
    """The images of a split beyond the sample lie unopened otherwise."""
    root = write_ade20k(tmp_path / 'ade', counts=(1, 1))
    for kind, suffix in (('images', 'jpg'), ('annotations', 'png')):
        source = root / f'{kind}/training/ADE_train_00000000.{suffix}'
        for index in range(1, 250):
            (source.parent / f'ADE_train_{index:08d}.{suffix}').write_bytes(source.read_bytes())
    (root / 'annotations/training/ADE_train_00000001.png').write_bytes(b'no image')
    done = run('ade20k.py', '--data-root', root)
    assert done.returncode == 0
    assert read_table(done.stdout)['opened'] == [125, 1]
    done = run('ade20k.py', '--data-root', root, '--full')
    assert done.returncode == 1
    assert read_table(done.stdout)['opened'] == [250, 1]
    assert 'ADE_train_00000001 has a label map that cannot be read' in done.stdout
