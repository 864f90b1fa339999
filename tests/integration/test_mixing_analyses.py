"""The analyses of named methods: as real processes on the embedded data, and their counts against plain loops."""

import json
import math
from types import SimpleNamespace

import cv2
import pytest
import torch
from conftest import METHODS
from mmengine.config import Config
from mmpretrain.structures import DataSample
from processes import ROOT, run

from smmix_mm.datasets.digit_scenes.dense import make_dense_digit_scenes
from smmix_mm.engine import build_model
from smmix_mm.mixing import step_streams

CONFIG = 'configs/smmix/vit-mini_smmix_1xb32-8e_digit-scenes.py'
CLASSES = 5


@pytest.fixture(autouse=True)
def tools(monkeypatch):
    """The programs import each other by their bare names."""
    monkeypatch.syspath_prepend(ROOT / 'tools/analysis_tools')


@pytest.fixture
def batches():
    """Three batches of pictures, as a loader gives them; the last is smaller."""
    generator = torch.Generator().manual_seed(0)

    def make(count):
        images = [torch.randint(0, 256, (3, 32, 32), generator=generator, dtype=torch.uint8) for _ in range(count)]
        labels = torch.randint(0, CLASSES, (count,), generator=generator).tolist()
        return dict(inputs=images, data_samples=[DataSample().set_gt_label(label) for label in labels])

    return [make(count) for count in (6, 6, 3)]


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Options for a few pictures in a folder of their own, and a checkpoint of random weights beside them."""
    folder = tmp_path_factory.mktemp('analyses')
    cfg = Config.fromfile(ROOT / CONFIG)
    torch.manual_seed(0)
    model = build_model(cfg)
    torch.save(dict(state_dict=model.state_dict()), folder / 'epoch_1.pth')
    loader = {'num_workers': 0, 'dataset.data_root': folder / 'data', 'dataset.sizes.train': 1, 'dataset.sizes.val': 40}
    options = ['--cfg-options', *(f'val_dataloader.{key}={value}' for key, value in loader.items())]
    return SimpleNamespace(folder=folder, checkpoint=folder / 'epoch_1.pth', options=options)


@pytest.fixture
def call(monkeypatch, data, capsys):
    """Runs a program in this process and returns what it printed."""

    def run_main(tool, *options, config=CONFIG, checkpoint=data.checkpoint):
        monkeypatch.chdir(ROOT)
        arguments = [f'{tool.__name__}.py', config, checkpoint, *options, *data.options]
        monkeypatch.setattr('sys.argv', [*map(str, arguments)])
        tool.main()
        return capsys.readouterr()

    return run_main


@pytest.mark.parametrize('family', ['vit', 'pvt', 'cait', 'swin'])
@pytest.mark.parametrize('name', ['CutMix', 'SMMix', 'AutoMix', 'Mixup'])
def test_top_1_and_top_2_are_those_of_a_plain_loop(make_classifier, batches, family, name):
    from mixed_accuracy import measure

    model = make_classifier(family, augments=[METHODS[name]]).eval()
    first = second = pairs = one_class = 0
    rates = []
    for step, batch in enumerate(batches):
        labels = [sample.gt_label.item() for sample in batch['data_samples']]
        images, targets = torch.stack(batch['inputs']).float(), torch.eye(CLASSES)[labels]
        with torch.no_grad():
            mixed = model.mix(model.mixing.methods[0], images, targets, step_streams(3, step))
        hits, of = 0, 0
        for index in range(len(labels)):
            with torch.no_grad():
                best = model(mixed.images[index : index + 1])[0].argsort(descending=True).tolist()
            wanted = set(mixed.targets[index].nonzero().flatten().tolist())
            if len(wanted) == 1:
                one_class += 1
                continue
            of += 1
            first += best[0] in wanted
            hits += set(best[:2]) == wanted
        pairs, second = pairs + of, second + hits
        rates.append(100 * hits / of)
    result = measure(model, batches, seed=3)
    assert (result.pairs, result.one_class) == (pairs, one_class)
    assert one_class > 0
    assert (result.top1, result.top2) == (100 * first / pairs, 100 * second / pairs)
    mean = sum(rates) / 3
    variance = sum((rate - mean) ** 2 for rate in rates) / 2
    assert result.top2_error == pytest.approx(math.sqrt(variance / 3))


@pytest.mark.parametrize('family', ['vit', 'pvt', 'cait', 'swin'])
@pytest.mark.parametrize('name', ['CutMix', 'SMMix'])
def test_attention_on_the_region_is_that_of_a_plain_loop(make_classifier, batches, family, name):
    from attention_stats import measure_pasted

    model = make_classifier(family, augments=[METHODS[name]]).eval()
    shares = measure_pasted(model, batches, seed=3)
    # In SMMix's the region's tokens are known; in CutMix's the pixels that changed are its box.
    attention, area = [], []
    for step, batch in enumerate(batches):
        labels = [sample.gt_label.item() for sample in batch['data_samples']]
        images, targets = torch.stack(batch['inputs']).float(), torch.eye(CLASSES)[labels]
        with torch.no_grad():
            mixed = model.mix(model.mixing.methods[0], images.clone(), targets, step_streams(3, step))
            scores = model.adapter.read(mixed.images, attention=True).attention
        for score, found, image in zip(scores, mixed.images, images, strict=True):
            changed = (found != image).any(dim=0)
            if not changed.any():
                continue
            rows, cols = changed.any(dim=1).nonzero().flatten(), changed.any(dim=0).nonzero().flatten()
            spread = torch.kron(score, torch.ones(8, 8)) / 64
            box = spread[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
            attention.append((box.sum() / spread.sum()).item())
            area.append(box.numel() / 1024)
    # An image mixed with itself changes in SMMix only.
    assert len(area) >= 10
    assert shares.area == pytest.approx(area)
    assert shares.attention == pytest.approx(attention, abs=1e-6)
    assert shares.left_out == 15 - len(area)


def test_backbones_without_attention_are_measured_too(batches):
    from attention_stats import measure_pasted
    from mixed_accuracy import measure

    from smmix_mm.registry import MODELS

    model = MODELS.build(
        dict(
            type='smmix_mm.MixingClassifier',
            backbone=dict(type='mmpretrain.ResNet_CIFAR', depth=18, base_channels=8, stem_channels=8),
            neck=dict(type='mmpretrain.GlobalAveragePooling'),
            head=dict(type='mmpretrain.LinearClsHead', num_classes=CLASSES, in_channels=64),
            train_cfg=dict(augments=[METHODS['SMMix']]),
        )
    ).eval()
    assert not model.adapter.has_attention
    assert len(measure_pasted(model, batches, seed=0).attention) == 15
    assert measure(model, batches, seed=0).pairs > 0


def test_mixed_accuracy_on_the_embedded_data(data):
    methods = ['cutmix', 'smmix', 'fmix', 'attentivemix', 'automix']
    done = run('analysis_tools/mixed_accuracy.py', ROOT / CONFIG, data.checkpoint, '--methods', *methods, *data.options)
    report = json.loads((data.folder / 'mixed_accuracy.json').read_text())
    assert list(report['results']) == ['cutmix', 'smmix', 'fmix']
    for name, result in report['results'].items():
        assert result['pairs'] + result['one_class'] == 40
        assert 0 <= result['top2'] <= result['top1'] <= 100
        assert f'| {name} | {result["top1"]:.1f} ± {result["top1_error"]:.1f} |' in done.stdout
    # Digits are drawn at random, so that a tenth of the pairs is of one class; in the files' order all would be.
    assert 0 < report['results']['smmix']['one_class'] < 20
    assert report['published_top2'] == {'cutmix': 23.8, 'smmix': 48.3}
    assert '| cutmix, the paper on ImageNet |  | 23.8 |' in done.stdout
    assert 'attentivemix needs a teacher: set --teacher CHECKPOINT' in report['left_out']['attentivemix']
    assert 'a checkpoint that was trained with automix' in report['left_out']['automix']
    assert 'automix is left out: ' in done.stderr


def test_a_teacher_and_other_settings_serve_methods_that_need_them(call, data, tmp_path):
    import mixed_accuracy

    options = ['--methods', 'tokenmix', '--out', tmp_path / 'a.json', '--set', 'tokenmix.patch_size=8']
    call(mixed_accuracy, *options, 'tokenmix.extra_tokens=5', '--teacher', data.checkpoint)
    assert json.loads((tmp_path / 'a.json').read_text())['results']['tokenmix']['pairs'] > 20


def test_the_seed_decides_the_result(call, tmp_path):
    import mixed_accuracy

    found = []
    for seed in (0, 0, 1):
        call(mixed_accuracy, '--methods', 'cutmix', '--seed', seed, '--out', tmp_path / 'a.json')
        found.append(json.loads((tmp_path / 'a.json').read_text())['results'])
    assert found[0] == found[1] != found[2]


def test_configs_of_stock_classifiers_are_measured_too(call, tmp_path):
    import mixed_accuracy

    stock = tmp_path / 'stock.py'
    stock.write_text(f"_base_ = ['{ROOT / CONFIG}']\nmodel = dict(type='ImageClassifier')\n")
    found = []
    for config in (CONFIG, stock):
        call(mixed_accuracy, '--methods', 'smmix', '--out', tmp_path / 'a.json', config=config)
        found.append(json.loads((tmp_path / 'a.json').read_text())['results'])
    assert found[0] == found[1]


def test_automix_mixes_by_what_its_checkpoint_learned(call, tmp_path):
    import mixed_accuracy

    from smmix_mm.engine import read_method, with_method

    cfg = with_method(Config.fromfile(ROOT / CONFIG), read_method('automix', {}))
    checkpoint = tmp_path / 'automix.pth'
    torch.save(dict(state_dict=build_model(cfg).state_dict()), checkpoint)
    call(mixed_accuracy, '--methods', 'automix', 'cutmix', checkpoint=checkpoint)
    report = json.loads((tmp_path / 'mixed_accuracy.json').read_text())
    assert list(report['results']) == ['automix', 'cutmix']


def test_attention_on_the_embedded_data(call, data):
    import attention_stats

    printed = call(attention_stats, '--methods', 'cutmix', 'mixup', 'smmix').out
    report = json.loads((data.folder / 'attention_stats/attention.json').read_text())
    assert list(report['pasted']) == ['cutmix', 'smmix']
    assert 'blends whole images' in report['left_out']['mixup']
    assert report['score'] == 'attention'
    for name, part in report['pasted'].items():
        assert part['images'] + part['left_out'] == 40
        assert part['ratio'] == pytest.approx(part['attention']['mean'] / part['area']['mean'])
        assert f'| {name} | {100 * part["attention"]["mean"]:.1f} |' in printed
    # The regions of SMMix have a quarter to three quarters of each side.
    assert 1 / 16 <= report['pasted']['smmix']['area']['q10'] <= report['pasted']['smmix']['area']['q90'] <= 9 / 16
    objects = report['objects']
    assert (objects['source'], objects['images'], objects['left_out']) == ('DigitScenes', 40, 0)
    assert 0.02 < objects['area']['mean'] < 0.3
    windows = objects['windows']
    assert set(windows) == {'all', '2x2', '3x3', '4x4', '5x5', '6x6'}
    assert all(0 < held[name]['mean'] <= 1 for held in windows.values() for name in ('most', 'random', 'least'))
    picture = cv2.imread(str(data.folder / 'attention_stats/attention.png'))
    # Four panels: two rows.
    assert picture.shape[1] > picture.shape[0] > 600


def test_attention_on_the_objects_of_coco(call, tmp_path):
    import attention_stats

    make_dense_digit_scenes(tmp_path / 'dense', dict(train=1, val=12), seed=0)
    coco = ['--coco-annotations', tmp_path / 'dense/annotations/instances_val.json', '--coco-images']
    options = ['--methods', 'smmix', '--out', tmp_path]
    call(attention_stats, *options, *coco, tmp_path / 'dense/images/val')
    objects = json.loads((tmp_path / 'attention.json').read_text())['objects']
    assert objects['images'] + objects['left_out'] == 12
    assert objects['images'] >= 10
    assert objects['source'].endswith('instances_val.json')
    # A missing folder costs the objects only.
    printed = call(attention_stats, *options, *coco, tmp_path / 'nowhere')
    report = json.loads((tmp_path / 'attention.json').read_text())
    assert f'--coco-images {tmp_path}/nowhere holds no pictures' in report['left_out']['objects']
    assert report['objects'] is None
    assert '| smmix |' in printed.out


def test_bad_input_is_named(call, tmp_path, capsys):
    import attention_stats
    import mixed_accuracy

    other = build_model(Config.fromfile(ROOT / 'configs/smmix/pvt-mini_smmix_1xb32-8e_digit-scenes.py'))
    torch.save(dict(state_dict=other.state_dict()), tmp_path / 'pvt.pth')
    cases = [
        (mixed_accuracy, ['--methods', 'mixmix'], {}, "invalid choice: 'mixmix'"),
        (mixed_accuracy, ['--methods', 'cutmix', '--batch-size', 1], {}, '--batch-size has to be at least 2'),
        (mixed_accuracy, ['--methods', 'cutmix', '--seed', -1], {}, '--seed has to be at least 0'),
        (mixed_accuracy, ['--methods', 'cutmix', '--set', 'size=2'], {}, '--set takes METHOD.SETTING=VALUE'),
        (mixed_accuracy, ['--methods', 'cutmix'], dict(checkpoint=tmp_path / 'none.pth'), 'there is no checkpoint'),
        (
            mixed_accuracy,
            ['--methods', 'cutmix'],
            dict(checkpoint=tmp_path / 'pvt.pth'),
            'does not fit MixingClassifier',
        ),
        (
            mixed_accuracy,
            ['--methods', 'cutmix'],
            dict(config='configs/mask_rcnn/mask-rcnn_pvt-mini_fpn_1xb8-3e_digit-scenes.py'),
            'has to be the config of a classifier, but model.type is',
        ),
        (attention_stats, ['--coco-images', tmp_path], {}, 'need each other'),
        (attention_stats, ['--methods', 'mixup'], dict(checkpoint=tmp_path / 'none.pth'), 'there is no checkpoint'),
    ]
    for tool, options, files, words in cases:
        with pytest.raises(SystemExit) as refused:
            call(tool, *options, **files)
        assert words in f'{refused.value}\n{capsys.readouterr().err}', words


def test_a_checkpoint_for_other_classes_is_refused(call, tmp_path):
    import mixed_accuracy

    cfg = Config.fromfile(ROOT / CONFIG)
    cfg.model.head.num_classes = cfg.data_preprocessor.num_classes = 7
    torch.save(dict(state_dict=build_model(cfg).state_dict()), tmp_path / 'seven.pth')
    with pytest.raises(SystemExit, match=r'seven\.pth does not fit MixingClassifier(.|\n)*head'):
        call(mixed_accuracy, '--methods', 'cutmix', checkpoint=tmp_path / 'seven.pth')
