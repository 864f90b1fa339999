"""Each line of docs/switches.md in a small training, and what it changes there."""

import argparse
import inspect
import json
import re
import runpy
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from conftest import backbone_cfg, neck_cfg
from mmengine.config import Config, DictAction
from mmengine.hooks import Hook
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from processes import ROOT
from resumable import small_config, train_pipeline, write_images
from test_docs import read_example

from smmix_mm.engine import build_model, build_runner

PAGE = 'docs/switches.md'
TEXT = (ROOT / PAGE).read_text()
IMAGES = 32
# The number of blocks, or the index of the last stage, that stands for the whole backbone.
WHOLE = dict(vit=3, pvt=4, cait=5, swin=1)


def options(switch: str, **replaced: object) -> list[str]:
    """What the table, or the command of the switch's section, offers for ``--cfg-options``, with other values."""
    if switch == 'Fine-tuning at 384':
        section = TEXT[TEXT.index(f'\n## {switch}') :].split('```')[1]
        line = section.replace('\\\n', '').partition('--cfg-options')[2]
    else:
        (row,) = (row for row in TEXT.splitlines() if row.startswith(f'| [{switch}]'))
        line = row.split('`')[1]
    found = dict(option.split('=', 1) for option in line.split())
    for old, new in replaced.items():
        changed = {name: str(new) for name, value in found.items() if old in (name.rpartition('.')[2], f'is_{value}')}
        assert changed, old
        found |= changed
    return [f'{name}={value}' for name, value in found.items()]


def apply(cfg: Config, line: list[str]) -> Config:
    """As tools/train.py does."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    cfg.merge_from_dict(parser.parse_args(['--cfg-options', *line]).cfg_options)
    return cfg


class Recorder(Hook):
    """The weights at the start and after each step, and the samples of each step."""

    priority = 'VERY_LOW'

    def __init__(self):
        self.weights, self.samples = [], []

    def before_train(self, runner):
        self._look(runner)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self._look(runner)
        self.samples += zip(data_batch['inputs'], data_batch['data_samples'], strict=True)

    def _look(self, runner):
        self.weights.append({name: value.clone() for name, value in runner.model.state_dict().items()})


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp('images')
    write_images(folder / 'train', IMAGES)
    write_images(folder / 'val', 8)
    return folder


@pytest.fixture
def config(images, tmp_path):
    """An epoch of four batches of SMMix, without what the switches add."""

    def make(family='vit', folder=images, **backbone):
        cfg = small_config(folder)
        head = 'VisionTransformerClsHead' if family == 'vit' else 'LinearClsHead'
        cfg.model.backbone = backbone_cfg(family, **backbone)
        cfg.model.train_cfg.augments = [dict(type='smmix_mm.SMMix')]
        cfg.model.neck, cfg.model.head.type = neck_cfg(family), f'mmpretrain.{head}'
        cfg.train_cfg.max_epochs, cfg.custom_hooks, cfg.work_dir = 1, [], str(tmp_path / 'run')
        cfg.train_dataloader.num_workers = cfg.val_dataloader.num_workers = 0
        cfg.train_dataloader.dataset.pipeline = [*train_pipeline()[:2], dict(type='mmpretrain.PackInputs')]
        cfg.val_dataloader.batch_size = 8
        cfg.test_dataloader = cfg.val_dataloader.to_dict()
        cfg.test_cfg, cfg.test_evaluator = {}, cfg.val_evaluator
        cfg.optim_wrapper = dict(optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05))
        cfg.log_level = 'WARNING'
        return cfg

    return make


@pytest.fixture
def train(monkeypatch):
    """Trains by a config, and returns the runner and the recorder."""
    # It asks compilers for their versions, again in each run.
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    names = iter(range(100))

    def run(cfg, **settings):
        cfg.merge_from_dict(settings)
        cfg.experiment_name = f'{cfg.work_dir}_{next(names)}'
        runner, recorder = build_runner(cfg), Recorder()
        runner.register_hook(recorder)
        runner.train()
        return runner, recorder

    return run


@pytest.fixture
def checkpoint(tmp_path):
    """Writes a checkpoint of the model of a config, in the form of a run's."""

    def write(cfg, name='pretrained.pth', without=()):
        torch.manual_seed(1)
        model = build_model(cfg)
        model.init_weights()
        state = model.state_dict()
        for key in without:
            state.pop(key)
        torch.save(dict(state_dict=state, meta={}), tmp_path / name)
        return tmp_path / name

    return write


def changed(before, after):
    return {name for name, value in after.items() if not torch.equal(value, before[name])}


def test_every_row_of_the_table_is_tested():
    rows = set(re.findall(r'^\| \[(.*?)\]\(#', TEXT, re.MULTILINE))
    source = ''.join(inspect.getsource(test) for name, test in globals().items() if name[:5] == 'test_')
    by_line = {name for name in rows if f"options('{name}'" in source}
    assert rows - by_line == {'Class-balanced sampling', 'k-NN of features', 'Several labels per image'}
    for name in by_line:
        assert options(name)


def test_ema(config, train, tmp_path):
    _, recorder = train(apply(config(), options('EMA', momentum=0.25)))
    saved = torch.load(tmp_path / 'run/iter_4.pth', weights_only=False)
    name = 'backbone.layers.0.attn.qkv.weight'
    expected = recorder.weights[1][name]
    for weights in recorder.weights[2:]:
        expected = 0.75 * expected + 0.25 * weights[name]
    # mmengine writes the averages under the name that tests load.
    torch.testing.assert_close(saved['state_dict'][name], expected)
    assert torch.equal(saved['ema_state_dict'][f'module.{name}'], recorder.weights[-1][name])


def test_repeated_augmentation(config, train):
    _, recorder = train(apply(config(), options('Repeated augmentation')))
    paths = [sample.img_path for _, sample in recorder.samples]
    assert sorted(Counter(paths).values()) == [2, *[3] * 10]
    assert all(len({paths[index + copy] for copy in range(3)}) == 1 for index in range(0, 30, 3))
    # Each copy is another picture.
    assert len({picture.numpy().tobytes() for picture, _ in recorder.samples}) == IMAGES


def test_accumulation(config, train):
    _, recorder = train(apply(config(), options('Accumulation')))
    moved = [bool(changed(*pair)) for pair in zip(recorder.weights, recorder.weights[1:], strict=False)]
    assert moved == [False, False, False, True]


def resized(value, extra, old, new, mode):
    grid = value[:, extra:].transpose(1, 2).unflatten(2, (old, old))
    grid = F.interpolate(grid, (new, new), mode=mode, align_corners=False)
    return torch.cat([value[:, :extra], grid.flatten(2).transpose(1, 2)], dim=1)


@pytest.mark.parametrize('family', ['vit', 'pvt', 'cait'])
def test_fine_tuning_at_384(config, train, checkpoint, family):
    """Here at 48 from 32 pixels, by ``load_from`` and by ``init_cfg``."""
    path = checkpoint(config(family))
    line = options('Fine-tuning at 384', is_CHECKPOINT=path, is_384=48, is_438=54)
    _, recorder = train(apply(config(family), line))
    given = torch.load(path, weights_only=True)['state_dict']
    if family == 'pvt':
        grids = {f'backbone.pos_embed{stage}': (int(stage == 4), side) for stage, side in enumerate((8, 4, 4, 4), 1)}
    else:
        grids = {'backbone.pos_embed': (int(family == 'vit'), 4)}
    mode = 'bilinear' if family == 'pvt' else 'bicubic'
    expected = given | {
        name: resized(given[name], extra, side, side * 3 // 2, mode) for name, (extra, side) in grids.items()
    }
    for name, value in expected.items():
        torch.testing.assert_close(recorder.weights[0][name], value, msg=name)
    assert {picture.shape for picture, _ in recorder.samples} == {(3, 48, 48)}
    scope = {}
    exec(read_example(PAGE, 'finetune').replace('384', '48').replace('CHECKPOINT', str(path)), scope)
    cfg = config(family)
    cfg.merge_from_dict(dict(model=scope['model']))
    model = build_model(cfg)
    model.init_weights()
    for name, value in model.backbone.state_dict().items():
        torch.testing.assert_close(value, expected[f'backbone.{name}'], msg=name)


def test_fine_tuning_refuses_a_backbone_that_does_not_fit(config, train, checkpoint):
    path = checkpoint(config(), without=['backbone.layers.1.ln1.weight'])
    line = options('Fine-tuning at 384', is_CHECKPOINT=path, is_384=48, is_438=54)
    with pytest.raises(ValueError, match=r'backbone\.layers\.1\.ln1\.weight'):
        train(apply(config(), line))


def test_the_line_of_384_reaches_every_size_of_the_config():
    cfg = Config.fromfile(ROOT / 'configs/smmix/deit-small_smmix_8xb128-300e_in1k.py')
    apply(cfg, options('Fine-tuning at 384'))
    sizes = {
        loader: [step[key] for step in cfg[loader].dataset.pipeline for key in ('scale', 'crop_size') if step.get(key)]
        for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader')
    }
    assert sizes == dict(train_dataloader=[384], val_dataloader=[438, 384], test_dataloader=[438, 384])
    init_default_scope('mmpretrain')
    assert MODELS.build(dict(cfg.model.backbone, arch='deit-tiny')).pos_embed.shape == (1, 24 * 24 + 1, 192)


# By hand: the blocks that a tensor has between itself and the head, of the small archs of the tests.
DISTANCES = dict(
    vit={'patch_embed.': 4, 'pos_embed': 4, 'cls_token': 4, 'layers.0.': 3, 'layers.1.': 2, 'layers.2.': 1, 'ln1.': 0},
    pvt={
        'patch_embed1.': 7, 'pos_embed1': 7, 'block1.0.': 6, 'patch_embed2.': 5, 'pos_embed2': 5, 'block2.0.': 5,
        'block2.1.': 4, 'patch_embed3.': 3, 'pos_embed3': 3, 'block3.0.': 3, 'patch_embed4.': 2, 'pos_embed4': 2,
        'cls_token': 2, 'block4.0.': 2, 'block4.1.': 1, 'norm.': 0,
    },
    cait={
        'patch_embed.': 6, 'pos_embed': 6, 'blocks.0.': 5, 'blocks.1.': 4, 'blocks.2.': 3, 'cls_token': 2,
        'blocks_token_only.0.': 2, 'blocks_token_only.1.': 1, 'norm.': 0,
    },
)  # fmt: skip


@pytest.mark.parametrize('family', DISTANCES)
def test_layer_wise_decay(config, train, family):
    runner, recorder = train(apply(config(family), options('Layer-wise decay')))
    rates = {group['param_name']: group['lr'] for group in runner.optim_wrapper.optimizer.param_groups}
    assert set(rates) == {name for name, _ in runner.model.named_parameters()}
    full = rates['region_head.weight']
    assert full > 0
    for name, rate in rates.items():
        own = name.removeprefix('backbone.')
        (distance,) = [count for start, count in DISTANCES[family].items() if own.startswith(start)] or [0]
        assert rate == pytest.approx(full * 0.75**distance), name
    assert changed(recorder.weights[0], recorder.weights[-1]) == set(rates)


def test_layer_wise_decay_refuses_a_backbone_without_depths(config, train):
    cfg = config()
    cfg.model.backbone = dict(type='mmpretrain.MobileNetV3', arch='small_075')
    cfg.model.neck = dict(type='mmpretrain.GlobalAveragePooling')
    cfg.model.head.update(type='mmpretrain.LinearClsHead', in_channels=432)
    with pytest.raises(NotImplementedError, match=r'MobileNetV3.*get_layer_depth'):
        train(apply(cfg, options('Layer-wise decay')))


@pytest.mark.parametrize(
    'family', ['vit', 'pvt', pytest.param('cait', marks=pytest.mark.slow), pytest.param('swin', marks=pytest.mark.slow)]
)
def test_linear_probing(config, train, checkpoint, family):
    path = checkpoint(config(family))
    cfg = config(family, drop_path_rate=0.5)
    runner, recorder = train(apply(cfg, options('Linear probing', is_CHECKPOINT=path, frozen_stages=WHOLE[family])))
    given = torch.load(path, weights_only=True)['state_dict']
    backbone = {name: value for name, value in given.items() if name.startswith('backbone.')}
    assert changed(backbone, {name: recorder.weights[-1][name] for name in backbone}) == set()
    moved = changed(recorder.weights[0], recorder.weights[-1])
    assert len(moved) == 2 and all(name.startswith('head.') for name in moved)
    # Features in training are those of evaluation.
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        features = [runner.model.train(mode).extract_feat(images)[0] for mode in (True, False)]
    assert torch.equal(*features)


@pytest.mark.parametrize('family', ['vit', 'pvt', 'cait'])
def test_frozen_stages(config, train, family):
    _, recorder = train(apply(config(family), options('Frozen stages')))
    frozen = dict(
        vit=('patch_embed.', 'pos_embed', 'cls_token', 'layers.0.', 'layers.1.'),
        pvt=tuple(f'{part}{stage}' for part in ('patch_embed', 'pos_embed', 'block') for stage in (1, 2)),
        cait=('patch_embed.', 'pos_embed', 'blocks.0.', 'blocks.1.'),
    )[family]
    kept = {name for name in recorder.weights[0] if name.removeprefix('backbone.').startswith(frozen)}
    assert changed(recorder.weights[0], recorder.weights[-1]) == set(recorder.weights[0]) - kept


def test_early_stopping(config, train):
    """Without learning, the accuracy of all epochs is that of the first."""
    cfg = apply(config(), options('Early stopping', patience=2))
    runner, _ = train(cfg, **{'optim_wrapper.optimizer.lr': 0.0, 'train_cfg.max_epochs': 6})
    assert runner.epoch == 3


def test_class_balanced_sampling(config, train, images, tmp_path):
    """Classes of 20, 8, 3 and 1 images; a run that is resumed in an epoch of repeated images ends with the same."""
    labels = [*[0] * 20, *[1] * 8, *[2] * 3, 3]
    paths = sorted(str(path.relative_to(images / 'train')) for path in (images / 'train').rglob('*.jpg'))
    lines = (f'{path} {label}\n' for path, label in zip(paths, labels, strict=True))
    (tmp_path / 'labels.txt').write_text(''.join(lines))
    base = config()
    base.train_cfg.max_epochs = 2
    base.train_dataloader.dataset.update(data_prefix='', ann_file=str(tmp_path / 'labels.txt'))
    base.default_hooks.checkpoint.update(interval=7, max_keep_ckpts=-1, save_best=None)
    base.dump(tmp_path / 'deit-small_smmix_8xb128-300e_in1k.py')
    block = read_example(PAGE, 'class-balanced')
    (tmp_path / 'balanced.py').write_text(block.replace('oversample_thr=0.001', 'oversample_thr=0.25'))
    found = []
    for start in (None, str(tmp_path / 'run/iter_7.pth')):
        cfg = Config.fromfile(tmp_path / 'balanced.py')
        work_dir = str(tmp_path / ('resumed' if start else 'run'))
        _, recorder = train(cfg, work_dir=work_dir, load_from=start, resume=bool(start))
        found.append(recorder)
    whole, resumed = found
    # sqrt(0.25 / f) is 1.6 and 2.8 for the rare classes.
    counts = Counter(sample.gt_label.item() for _, sample in whole.samples)
    assert counts == {0: 2 * 20, 1: 2 * 8, 2: 2 * 3 * 2, 3: 2 * 1 * 3}
    assert len({picture.numpy().tobytes() for picture, _ in whole.samples}) == len(whole.samples)
    assert len(whole.weights) == 11
    assert len(resumed.weights) == 4
    assert changed(whole.weights[-1], resumed.weights[-1]) == set()


def test_several_labels_per_image_are_refused(config, train, images, tmp_path):
    names = sorted(str(path) for path in (images / 'train').rglob('*.jpg'))
    content = dict(
        metainfo=dict(classes=['a', 'b', 'c', 'd']),
        data_list=[dict(img_path=name, gt_label=[index % 4, 3][: 1 + index % 2]) for index, name in enumerate(names)],
    )
    (tmp_path / 'labels.json').write_text(json.dumps(content))
    cfg = config()
    pipeline = cfg.train_dataloader.dataset.pipeline
    cfg.train_dataloader.dataset = dict(
        type='mmpretrain.MultiLabelDataset', ann_file=str(tmp_path / 'labels.json'), pipeline=pipeline
    )
    with pytest.raises(ValueError, match=r'one label per image, but .*\.jpg has \[\d, 3\]'):
        train(cfg)
    cfg.model.head = dict(type='mmpretrain.MultiLabelLinearClsHead', num_classes=4, in_channels=32)
    with pytest.raises(ValueError, match=r'one label per image.*but got MultiLabelLinearClsHead.*several labels'):
        build_runner(cfg)


@pytest.fixture
def knn(monkeypatch):
    """The tool, in this process."""

    def run(*args):
        path = ROOT / 'tools/analysis_tools/knn.py'
        monkeypatch.syspath_prepend(path.parent)
        monkeypatch.setattr('sys.argv', [str(path), *map(str, args)])
        runpy.run_path(str(path), run_name='__main__')

    return run


@pytest.mark.parametrize('stock', [False, True])
def test_knn_of_features(config, checkpoint, knn, tmp_path, capsys, stock):
    cfg = config()
    if stock:
        cfg.model.type = 'mmpretrain.ImageClassifier'
        cfg.model.train_cfg = None
    path = checkpoint(cfg)
    cfg.dump(tmp_path / 'config.py')
    knn(tmp_path / 'config.py', path, '--k', 1, 5)
    report = json.loads((tmp_path / 'knn.json').read_text())
    assert (report['training_images'], report['validation_images']) == (IMAGES, 8)
    assert f'| 5 | {report["top1"]["5"]:.1f} | 32 | 8 |' in capsys.readouterr().out
    model = build_model(cfg).eval()
    model.load_state_dict(torch.load(path, weights_only=True)['state_dict'])
    features, labels = {}, {}
    for split in ('train', 'val'):
        loader = cfg.val_dataloader.to_dict()
        loader['dataset']['data_root'] = loader['dataset']['data_root'].replace('/val', f'/{split}')
        batches = [model.data_preprocessor(batch) for batch in Runner.build_dataloader(loader)]
        with torch.no_grad():
            features[split] = torch.cat([model.backbone(batch['inputs'])[-1] for batch in batches])
        labels[split] = torch.tensor([sample.gt_label.item() for batch in batches for sample in batch['data_samples']])
    similarity = F.normalize(features['val']) @ F.normalize(features['train']).T
    for k in (1, 5):
        nearest, index = similarity.topk(k)
        votes = (F.one_hot(labels['train'][index], 4) * (nearest / 0.07).exp()[..., None]).sum(dim=1)
        expected = 100 * (votes.argmax(dim=1) == labels['val']).float().mean().item()
        assert report['top1'][str(k)] == pytest.approx(expected)


def test_knn_refuses_more_neighbours_than_images(config, checkpoint, knn, tmp_path):
    cfg = config()
    path = checkpoint(cfg)
    cfg.dump(tmp_path / 'config.py')
    with pytest.raises(SystemExit, match='--k has to be at most 32, the number of training images, but is 33'):
        knn(tmp_path / 'config.py', path, '--k', 33)


def test_options_of_knn_are_all_in_the_docs():
    section = TEXT[TEXT.index('## k-NN') :].split('\n## ')[0]
    source = (ROOT / 'tools/analysis_tools/knn.py').read_text()
    assert re.findall(r'^\| `(--[a-z-]+)', section, re.MULTILINE) == re.findall(r"'(--[a-z-]+)'", source)
