"""Out-of-distribution tests, on models whose predictions are known beforehand."""

import json
import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, TRANSFORMS, init_default_scope
from processes import ROOT, run

from smmix_mm.engine import build_model
from smmix_mm.evaluation import ALEXNET_ERRORS

DEIT = 'configs/smmix/deit-tiny_smmix_8xb128-300e_in1k.py'
DIGITS = 'configs/smmix/pvt-mini_smmix_1xb32-8e_digit-scenes.py'


@pytest.fixture(scope='module')
def tool() -> dict:
    return runpy.run_path(str(ROOT / 'tools/analysis_tools/robustness.py'))


def save_constant(config: str, path: Path, ranking: list[int]) -> Path:
    """Saves a model that ranks these labels highest, in this order, whatever it sees."""
    model = build_model(Config.fromfile(ROOT / config))
    last = [module for module in model.head.modules() if isinstance(module, torch.nn.Linear)][-1]
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    for place, label in enumerate(ranking):
        last.bias.data[label] = 9 - place
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    return path


def write_images(folder: Path, **counts: int) -> None:
    for synset, count in counts.items():
        (folder / synset).mkdir(parents=True)
        for index in range(count):
            cv2.imwrite(str(folder / synset / f'{index}.JPEG'), np.full((40, 48, 3), 40 * index, dtype=np.uint8))


def read(out: Path) -> tuple[dict, str]:
    return json.loads((out / 'robustness.json').read_text()), (out / 'robustness.md').read_text()


def test_imagenets_that_are_there_are_scored(tmp_path):
    data = tmp_path / 'data'
    # Tench, label 0, is neither in ImageNet-A nor in -R; the next is stingray, 6, in both.
    checkpoint = save_constant(DEIT, tmp_path / 'model.pth', [0, 6])
    write_images(data / 'imagenet-a', n01498041=3, n01531178=1)
    write_images(data / 'imagenet-r', n01498041=1, n01443537=4, paintings=1)
    write_images(data / 'sketch', n01440764=2, n01498041=1, n01443537=1)
    write_images(data / 'stylized-imagenet/val', n01443537=1)
    (data / 'stylized-imagenet/val/n01443537/0.JPEG').write_bytes(b'no image')
    write_images(data / 'ImageNet-C/snow/2', n01440764=1, n01443537=1)
    write_images(data / 'ImageNet-C/snow/5', n01443537=1)
    write_images(data / 'ImageNet-C/fog/5', n01440764=1)
    run(
        'analysis_tools/robustness.py', DEIT, checkpoint, '--data-root', data, '--out', tmp_path / 'out',
        '--cfg-options', 'test_dataloader.num_workers=0',
    )  # fmt: skip
    found, text = read(tmp_path / 'out')
    assert found['top1'] == {
        'ImageNet-A': 75.0,
        'ImageNet-Sketch': 50.0,
        'ImageNet-C/snow/2': 50.0,
        'ImageNet-C/snow/5': 0.0,
        'ImageNet-C/fog/5': 100.0,
    }
    assert found['images'] == dict(zip(found['top1'], (4, 4, 2, 1, 1), strict=True))
    assert found['ImageNet-C'] == dict(
        top1=dict(snow={'2': 50.0, '5': 0.0}, fog={'5': 100.0}), mean=dict(snow=25.0, fog=100.0), overall=62.5
    )
    skipped = found['skipped']
    assert skipped.keys() == {'ImageNet-1k', 'ImageNet-R', 'ImageNet-Stylized', 'ImageNet-C'}
    assert skipped['ImageNet-1k'] == f'there is no {data}/imagenet/val'
    assert 'holds folders that are no synsets of imagenet_r: paintings' in skipped['ImageNet-R']
    assert 'val/n01443537/0.JPEG cannot be read' in skipped['ImageNet-Stylized']
    assert skipped['ImageNet-C'] == f'there is no {data}/ImageNet-C/gaussian_noise/1 and 71 further folders'
    assert '| this checkpoint | - | 75.0 | - | 50.0 | - |' in text
    assert '| CutMix, published | 72.2 | 7.1 | 33.2 | 20.3 | 10.7 |' in text
    assert '| SMMix, published | 73.6 | 8.5 | 34.9 | 22.2 | 11.2 |' in text
    assert '| ImageNet-A | 4 of 7500 |' in text
    assert '| Corruption | 2 | 5 | mean |' in text
    assert '| fog | - | 100.0 | 100.0 |' in text
    assert all(f'- {name}: {why}' in text for name, why in skipped.items())
    assert 'mCE' not in text


def test_other_models_are_tested_on_their_own_data(tmp_path):
    """ImageNets are left out by name; digit 3 is what the model says of everything."""
    checkpoint = save_constant(DIGITS, tmp_path / 'model.pth', [3])
    sizes = ['test_dataloader.dataset.sizes.train=10', 'test_dataloader.dataset.sizes.val=40']
    options = ['--cfg-options', f'test_dataloader.dataset.data_root={tmp_path / "digits"}', *sizes]
    run(
        'analysis_tools/robustness.py', DIGITS, checkpoint, '--out', tmp_path / 'out', '--severities', 1, 4,
        '--datasets', 'ImageNet-A', 'corruptions', *options, 'test_dataloader.num_workers=0',
    )  # fmt: skip
    found, text = read(tmp_path / 'out')
    threes = 100 * len(list((tmp_path / 'digits/val/3').iterdir())) / 40
    parts = [
        f'/{corruption}/{severity}' for corruption in ('noise', 'blur', 'contrast', 'occlusion') for severity in (1, 4)
    ]
    assert found['top1'] == {f'corruptions{part}': pytest.approx(threes) for part in ('', *parts)}
    assert found['published'] == {}
    assert found['skipped'] == {
        'ImageNet-A': 'it has the 1000 classes of ImageNet-1k, but model.head.num_classes is 10'
    }
    assert f'| all |  |  | {threes:.1f} |' in text
    assert f'Without corruption: {threes:.1f} (40 images).' in text


def test_a_checkpoint_of_other_classes_is_refused(tmp_path):
    checkpoint = save_constant(DIGITS, tmp_path / 'model.pth', [3])
    write_images(tmp_path / 'imagenet-a', n01498041=1)
    options = ['--data-root', tmp_path, '--out', tmp_path / 'out']
    done = run('analysis_tools/robustness.py', DEIT, checkpoint, *options, check=False)
    assert done.returncode != 0
    assert 'model.pth does not fit MixingClassifier' in done.stderr


@pytest.fixture
def fail(tool, tmp_path, monkeypatch):
    """Calls the tool, which has to fail before it reads the checkpoint, and returns the error."""

    def call(config, *options):
        argv = ['robustness.py', ROOT / config, 'model.pth', '--out', tmp_path / 'out', *options]
        monkeypatch.setattr('sys.argv', list(map(str, argv)))
        with pytest.raises((SystemExit, ValueError, FileNotFoundError)) as caught:
            tool['main']()
        return str(caught.value)

    return call


def test_nothing_to_test_is_an_error(fail, tmp_path):
    error = fail(DEIT, '--data-root', tmp_path / 'none', '--datasets', 'ImageNet-A', 'ImageNet-Sketch')
    assert f'was not tested on anything: there is no {tmp_path}/none/imagenet-a; there is no {tmp_path}/none' in error
    assert 'none/ImageNet-Sketch/sketch' in (tmp_path / 'out/robustness.md').read_text()


def test_other_configs_are_refused(fail):
    error = fail('configs/sem_fpn/fpn_pvt-mini_1xb8-300_digit-scenes-128x128.py')
    assert 'has to be the config of a classifier, with model.head.num_classes and' in error
    assert 'but the former is None and the latter [{' in error


def test_a_missing_test_set_is_named(fail, tmp_path, monkeypatch):
    monkeypatch.setenv('DATA_ROOT', str(tmp_path / 'nowhere'))
    error = fail('configs/cifar_folders/pvt-cifar_1xb100-200e_cifar10-folders.py')
    assert 'nowhere/test, which test_dataloader.dataset reads, does not exist' in error


def test_images_are_corrupted_after_loading(tool, tmp_path):
    """Those of the test set, and each as the transform itself does."""
    cfg = Config.fromfile(ROOT / DIGITS)
    cfg.test_dataloader.dataset.update(data_root=str(tmp_path / 'digits'), sizes=dict(train=10, val=10))
    init_default_scope('mmpretrain')
    sets = tool['corrupt_own'](cfg.test_dataloader.dataset, [2])
    plain = DATASETS.build(sets.pop('corruptions')['dataset'])
    assert len(sets) == 4
    for name, parts in sets.items():
        _, corruption, severity = name.split('/')
        corrupt = TRANSFORMS.build(dict(type='smmix_mm.Corrupt', corruption=corruption, severity=int(severity)))
        corrupted = DATASETS.build(parts['dataset'])
        for before, after in zip(plain, corrupted, strict=True):
            expected = corrupt(dict(img=before['inputs'].permute(1, 2, 0).numpy()))['img']
            assert (after['inputs'].permute(1, 2, 0).numpy() == expected).all()
            assert after['data_samples'].gt_label == before['data_samples'].gt_label


def test_images_that_the_dataset_loads_are_corrupted_first(tool):
    cifar = Config.fromfile(ROOT / 'configs/smmix/pvt-cifar_smmix_1xb100-200e_cifar10.py').test_dataloader.dataset
    pipelines = [parts['dataset']['pipeline'] for parts in tool['corrupt_own'](cifar, [3]).values()]
    assert [[step['type'].split('.')[-1] for step in pipeline] for pipeline in pipelines] == [
        ['PackInputs'],
        *[['Corrupt', 'PackInputs']] * 4,
    ]
    assert len(cifar.pipeline) == 1


def test_crops_of_imagenet_c_are_scored_whole(tool, tmp_path):
    """Of the size of a model's crop they pass its pipeline unchanged."""
    pipeline = Config.fromfile(ROOT / DEIT).test_dataloader.dataset.pipeline
    image = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / 'crop.png'), image)
    init_default_scope('mmpretrain')
    results = dict(img_path=str(tmp_path / 'crop.png'))
    for step in tool['keep_size'](pipeline)[:-1]:
        results = TRANSFORMS.build(step)(results)
    assert (results['img'] == image).all()
    assert pipeline[1].scale == 256


def test_published_rows_are_those_of_the_model(tool):
    find = tool['find_published']
    tables = {name: find(f'{name}_8xb128-300e_in1k') for name in ('pvt-large_smmix', 'pvt-large_cutmix')}
    assert tables['pvt-large_smmix'] == tables['pvt-large_cutmix']
    names = ('ImageNet-1k', 'ImageNet-A', 'ImageNet-R', 'ImageNet-Sketch', 'ImageNet-Stylized')
    assert tables['pvt-large_smmix'] == dict(
        CutMix=dict(zip(names, (81.7, 26.3, 44.1, 29.9, 14.0), strict=True)),
        SMMix=dict(zip(names, (82.7, 30.0, 44.9, 31.5, 16.3), strict=True)),
    )
    # The paper has no such figures of CaiT, and none of models that are not trained on ImageNet-1k, or not its own.
    assert find('cait-xxs24_smmix_8xb128-300e_in1k') == dict(CutMix={'ImageNet-1k': 77.6}, SMMix={'ImageNet-1k': 78.9})
    for name in ('deit-small_smmix_1xb100-200e_cifar10-224', 'my-model', 'resnet50_smmix_8xb32-100e_in1k'):
        assert not any(find(name).values())


def test_the_error_over_alexnets_needs_all_of_imagenet_c(tool):
    report = tool['Report']('model', 'model.pth', ['ImageNet-C'])
    for name, error in ALEXNET_ERRORS.items():
        for severity in range(1, 6):
            report.top1[f'ImageNet-C/{name}/{severity}'] = 100 - error * severity / 6
    summary = tool['summarise'](report, 'ImageNet-C')
    assert summary['mce'] == pytest.approx(50)
    assert summary['overall'] == pytest.approx(100 - np.mean(list(ALEXNET_ERRORS.values())) / 2)
    assert 'Mean corruption error (mCE): 50.0, AlexNet: 100.' in tool['write_markdown'](report)
    del report.top1['ImageNet-C/fog/4']
    assert 'mce' not in tool['summarise'](report, 'ImageNet-C')
