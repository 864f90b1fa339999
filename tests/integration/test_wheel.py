"""The wheel: the same from a clone and from the source distribution, and all of it works in a clean environment."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import yaml

import smmix_mm

ROOT = Path(__file__).resolve().parents[2]
CONFIG = 'vit-mini_smmix_1xb32-8e_digit-scenes.py'
SMALL = ['train_cfg.max_epochs=1']
SMALL += [
    f'{loader}_dataloader.dataset.sizes.{split}={count}'
    for loader in ('train', 'val', 'test')
    for split, count in (('train', 64), ('val', 32))
]
BUILD = 'import sys; from setuptools import build_meta as backend; getattr(backend, sys.argv[1])(sys.argv[2])'
# What `mim` itself needs beyond the packages of the tests.
MIM = ('openmim==0.3.9', 'colorama', 'tabulate', 'pandas>=2.2,<3', 'pytz', 'tzdata')


def call(*command, cwd=None, check=True):
    environment = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'} | dict(OMP_NUM_THREADS='1')
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert not check or done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def read_content(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope='module')
def clone(tmp_path_factory):
    """The files of the working tree that git knows, and no others."""
    folder = tmp_path_factory.mktemp('clone') / 'smmix_mm'
    listed = call('git', 'ls-files', '--cached', '--others', '--exclude-standard', cwd=ROOT).stdout.splitlines()
    for name in filter(lambda name: (ROOT / name).is_file(), listed):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope='module')
def wheel(clone, tmp_path_factory):
    """Built as `python -m build` does, without its isolated environment: the source distribution, and a wheel of it."""
    folder = tmp_path_factory.mktemp('dist')
    call(sys.executable, '-c', BUILD, 'build_sdist', folder, cwd=clone)
    (archive,) = folder.glob('*.tar.gz')
    shutil.unpack_archive(archive, folder, filter='data')
    call(sys.executable, '-c', BUILD, 'build_wheel', folder, cwd=folder / archive.name.removesuffix('.tar.gz'))
    (wheel,) = folder.glob('*.whl')
    return wheel


@pytest.fixture(scope='module')
def environment(wheel, tmp_path_factory):
    """Has the wheel, and sees the other packages of this environment."""
    folder = tmp_path_factory.mktemp('clean')
    call(sys.executable, '-m', 'venv', folder)
    python = folder / 'bin/python'
    site = Path(call(python, '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))').stdout.strip())
    # The .pth files there, such as those of editable installs, are not read.
    (site / 'others.pth').write_text(sysconfig.get_path('purelib'))
    call(python, '-m', 'pip', 'install', '--no-deps', '--quiet', wheel)
    return folder


@pytest.fixture(scope='module')
def mim(environment):
    done = call(environment / 'bin/python', '-m', 'pip', 'install', '--no-deps', '--quiet', *MIM, check=False)
    if done.returncode:
        pytest.skip(f'openmim cannot be installed: {done.stderr[-300:]}')
    return environment / 'bin/mim'


@pytest.mark.slow
def test_a_clone_and_the_source_distribution_give_the_same_wheel(clone, wheel, tmp_path):
    # Left by an earlier build.
    stale = clone / 'build/lib/smmix_mm/.mim/configs/removed.py'
    stale.parent.mkdir(parents=True)
    stale.touch()
    call(
        sys.executable,
        '-m',
        'pip',
        'wheel',
        '--no-deps',
        '--no-build-isolation',
        '--wheel-dir',
        tmp_path,
        '.',
        cwd=clone,
    )
    (direct,) = tmp_path.glob('*.whl')
    assert direct.name == wheel.name == f'smmix_mm-{smmix_mm.__version__}-py3-none-any.whl'
    assert read_content(direct) == read_content(wheel)
    assert not (clone / 'smmix_mm/.mim').exists()


@pytest.mark.slow
def test_the_wheel_carries_what_the_repository_has(clone, wheel):
    content = read_content(wheel)
    for name in ('configs', 'tools', 'model-index.yml', 'smmix_mm'):
        paths = [path for path in [clone / name, *(clone / name).rglob('*')] if path.is_file()]
        for path in paths:
            relative = path.relative_to(clone).as_posix()
            assert content.pop(relative if name == 'smmix_mm' else f'smmix_mm/.mim/{relative}') == path.read_bytes()
    assert all(name.startswith(f'smmix_mm-{smmix_mm.__version__}.dist-info/') for name in content)


@pytest.mark.slow
def test_configs_and_models_by_name(environment, tmp_path):
    (tmp_path / 'own.py').write_text(f"_base_ = 'smmix_mm::smmix/{CONFIG}'\ntrain_cfg = dict(max_epochs=3)\n")
    code = f"""
import json
from pathlib import Path
import smmix_mm
from smmix_mm import get_model
from smmix_mm.engine import METHODS
from mmengine.config import Config
cfg = Config.fromfile('own.py')
model = get_model({CONFIG!r})
print(json.dumps(dict(
    package=str(Path(smmix_mm.__file__).resolve()), epochs=cfg.train_cfg.max_epochs, type=cfg.model.type,
    methods=[*METHODS], parameters=sum(value.numel() for value in model.backbone.parameters()),
)))
"""
    found = json.loads(call(environment / 'bin/python', '-c', code, cwd=tmp_path).stdout.splitlines()[-1])
    assert environment.resolve() in Path(found['package']).parents
    assert (found['epochs'], found['type']) == (3, 'smmix_mm.MixingClassifier')
    assert found['methods'] == sorted(path.stem for path in (ROOT / 'configs/_base_/methods').glob('*.py'))
    assert found['parameters'] > 100_000


@pytest.mark.slow
def test_mim_trains_and_tests(mim, tmp_path):
    done = call(mim, 'train', 'smmix_mm', CONFIG, '--work-dir', 'run', '--cfg-options', *SMALL, cwd=tmp_path)
    assert 'Training finished successfully' in done.stdout
    (tmp_path / 'own.py').write_text(f"_base_ = 'smmix_mm::smmix/{CONFIG}'\n")
    options = ['--checkpoint', 'run/epoch_1.pth', '--out', 'metrics.json', '--cfg-options', *SMALL[1:]]
    done = call(mim, 'test', 'smmix_mm', 'own.py', *options, cwd=tmp_path)
    assert 'Testing finished successfully' in done.stdout
    trained = [json.loads(line) for line in next(tmp_path.glob('run/*/vis_data/scalars.json')).read_text().splitlines()]
    (validated,) = [line['accuracy/top1'] for line in trained if 'accuracy/top1' in line]
    assert json.loads((tmp_path / 'metrics.json').read_text())['accuracy/top1'] == pytest.approx(validated)
    # Nothing is written beside the package.
    assert {path.name for path in tmp_path.iterdir()} == {'data', 'run', 'own.py', 'work_dirs', 'metrics.json'}
    site = next((mim.parents[1] / 'lib').glob('*/site-packages/smmix_mm/.mim'))
    assert {path.name for path in site.iterdir()} == {'configs', 'tools', 'model-index.yml'}


@pytest.mark.slow
def test_mim_names_the_run_that_is_missing(mim, tmp_path):
    done = call(mim, 'train', 'smmix_mm', 'mask-rcnn_pvt-tiny_fpn_1x_coco.py', cwd=tmp_path, check=False)
    assert done.returncode
    assert 'mim train smmix_mm configs/smmix/pvt-tiny_smmix_8xb128-300e_in1k.py' in done.stderr


@pytest.mark.slow
def test_mim_finds_every_entry_of_the_metafiles(mim, tmp_path):
    call(mim, 'search', 'smmix_mm', '--json', 'found.json', cwd=tmp_path)
    names = [
        model['Name']
        for metafile in yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']
        for model in yaml.safe_load((ROOT / metafile).read_text())['Models']
    ]
    found = json.loads((tmp_path / 'found.json').read_text())
    assert sorted(found['config']) == sorted(names)
    assert found['imagenet-1k/top_1_accuracy']['deit-small_smmix_8xb128-300e_in1k'] == 81.1
