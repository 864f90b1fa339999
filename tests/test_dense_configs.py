"""Every config of detection and segmentation builds, holds the published recipe and takes a training step.

Configs of another schedule share the model, which others show to be equal.
"""

import argparse
import copy
import functools
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config, DictAction
from mmengine.dataset import Compose
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, PARAM_SCHEDULERS, init_default_scope
from mmengine.runner import Runner
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample
from test_configs import PUBLISHED, ROOT, build_model, count_parameters

TASKS = ('mask_rcnn', 'retinanet', 'sem_fpn')
SIZES = ('tiny', 'small', 'medium', 'large')
# The one setting that names the weights to start from.
WEIGHTS = 'model.backbone.init_cfg.checkpoint'
DENSE = [path for path in PUBLISHED if path.parent.name in TASKS]
# One of each model.
DISTINCT = [path for path in DENSE if '40k' not in path.stem]
TINY = {path.parent.name: path for path in DISTINCT if 'pvt-tiny' in path.stem}
# In millions, as the PVT paper has them.
PARAMETERS = {
    'mask_rcnn': dict(tiny=32.9, small=44.1, medium=63.9, large=81.0),
    'retinanet': dict(tiny=23.0, small=34.2, medium=53.9, large=71.1),
    'sem_fpn': dict(tiny=17.0, small=28.2, medium=48.0, large=65.1),
}

each_dense_config = pytest.mark.parametrize('path', DENSE, ids=lambda path: path.stem)
each_task = pytest.mark.parametrize('task', TASKS)


@functools.cache
def read(path: Path) -> Config:
    """For those who change nothing in it."""
    return Config.fromfile(path)


def load(path: Path) -> Config:
    """The config without its first weights, which no test has, and with its own scope entered."""
    cfg = copy.deepcopy(read(path))
    cfg.model.backbone.pop('init_cfg')
    init_default_scope(cfg.default_scope)
    return cfg


def flatten(settings: Mapping, prefix: str = '') -> Iterator[tuple[str, object]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f'{prefix}{key}.')
        else:
            yield prefix + key, value


def scale_to(height: int, width: int, scale: tuple[int, int]) -> tuple[int, int]:
    """The largest size of that shape whose longer side fits the longer bound, and the shorter one the shorter."""
    factor = min(max(scale) / max(height, width), min(scale) / min(height, width))
    return int(height * factor + 0.5), int(width * factor + 0.5)


def parse_options(arguments: list[str]) -> dict:
    """What a command line has behind ``--cfg-options``, as mmengine's tools read it."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    return parser.parse_known_args(arguments)[0].cfg_options


def test_there_is_a_config_for_each_task_and_size():
    names = dict(
        mask_rcnn=['mask-rcnn_pvt-{}_fpn_1x_coco'],
        retinanet=['retinanet_pvt-{}_fpn_1x_coco'],
        sem_fpn=['fpn_pvt-{}_8xb2-80k_ade20k-512x512', 'fpn_pvt-{}_8xb4-40k_ade20k-512x512'],
    )
    for task, templates in names.items():
        expected = {name.format(size) for name in templates for size in SIZES}
        assert {path.stem for path in DENSE if path.parent.name == task} == expected
    assert len(DENSE) == 16
    assert len(DISTINCT) == 12


@pytest.mark.parametrize('task', ['mask_rcnn', 'sem_fpn'])
def test_configs_of_the_demo_differ_in_the_first_weights_alone(task):
    paths = {path.stem.split('_')[1]: path for path in (ROOT / 'configs' / task).glob('*digit-scenes*.py')}
    assert paths.keys() == {'pvt-mini', 'pvt-mini-scratch'}
    settings = {name: Config.fromfile(path).to_dict() for name, path in paths.items()}
    scratch, pretrained = (
        settings[name]['model']['backbone'].pop('init_cfg') for name in ('pvt-mini-scratch', 'pvt-mini')
    )
    assert settings['pvt-mini'] == settings['pvt-mini-scratch']
    assert scratch['type'] == 'Kaiming'
    assert pretrained == dict(
        type='Pretrained', checkpoint='work_dirs/pvt-mini_smmix_1xb32-8e_digit-scenes/epoch_8.pth'
    )


@pytest.mark.parametrize('task', ['mask_rcnn', 'sem_fpn'])
def test_the_demo_has_the_parts_of_the_published_runs(task):
    """The same transforms, samplers, loops and optimiser, with settings of its own."""
    (path,) = (ROOT / 'configs' / task).glob('*pvt-mini-scratch*.py')
    demo, published = read(path), read(TINY[task])
    data = ('smmix_mm.DigitScenesDetection', 'smmix_mm.DigitScenesSegmentation', published.dataset_type)
    for part in ('train_dataloader', 'val_dataloader', 'test_dataloader', 'val_evaluator', 'test_evaluator'):
        types = [[name for name in find_types(cfg[part]) if name not in data] for cfg in (demo, published)]
        assert types[0] == types[1]
    for part in ('optim_wrapper', 'train_cfg', 'val_cfg', 'test_cfg'):
        assert list(find_types(demo[part])) == list(find_types(published[part]))
    optimizers = [dict(cfg.optim_wrapper.optimizer, lr=None) for cfg in (demo, published)]
    assert optimizers[0] == optimizers[1]


def test_data_of_both_detectors_differ_in_the_masks_alone():
    boxes, masks = read(TINY['retinanet']), read(TINY['mask_rcnn'])
    for split in ('train', 'val', 'test'):
        loaders = [cfg[f'{split}_dataloader'].to_dict() for cfg in (boxes, masks)]
        for loader in loaders:
            loader['dataset'].pop('pipeline')
        assert loaders[0] == loaders[1]
    for name in ('train_pipeline', 'val_pipeline', 'test_pipeline'):
        without = [{key: value for key, value in step.items() if key != 'with_mask'} for step in masks[name]]
        assert without == boxes[name]
        assert ['with_mask' in step for step in masks[name]].count(True) == 1


@each_dense_config
def test_first_weights_are_where_the_pretraining_leaves_them(path):
    backbone = read(path).model.backbone
    init_cfg = backbone.init_cfg
    assert set(init_cfg) == {'type', 'checkpoint'}
    assert init_cfg.type == 'Pretrained'
    work_dirs, run, checkpoint = Path(init_cfg.checkpoint).parts
    assert work_dirs == 'work_dirs'
    for method in ('smmix', 'cutmix'):
        pretraining = read(ROOT / 'configs' / method / f'{run.replace("smmix", method)}.py')
        assert checkpoint == f'epoch_{pretraining.train_cfg.max_epochs}.pth'
        assert (backbone.type, backbone.arch) == (pretraining.model.backbone.type, pretraining.model.backbone.arch)
    assert backbone.arch in path.stem


DENSE_DEMO = [path for task in TASKS for path in (ROOT / 'configs' / task).glob('*pvt-mini_*.py')]


@pytest.mark.parametrize('path', [*DENSE, *DENSE_DEMO], ids=lambda path: path.stem)
def test_one_option_replaces_the_first_weights(path):
    """With the weights of the CutMix run, or with none, all else stays as it is."""
    before = dict(flatten(read(path)))
    assert [key for key, value in before.items() if value == before[WEIGHTS]] == [WEIGHTS]
    cutmix = before[WEIGHTS].replace('smmix', 'cutmix')
    cfg = copy.deepcopy(read(path))
    cfg.merge_from_dict(parse_options(['--cfg-options', f'{WEIGHTS}={cutmix}']))
    assert dict(flatten(cfg)) == {**before, WEIGHTS: cutmix}
    cfg.merge_from_dict(parse_options(['--cfg-options', 'model.backbone.init_cfg=None']))
    expected = {key: value for key, value in before.items() if not key.startswith('model.backbone.init_cfg')}
    assert dict(flatten(cfg)) == {**expected, 'model.backbone.init_cfg': None}


@each_task
def test_the_readme_shows_the_run_from_each_pretraining(task):
    """Its commands read the checkpoints that its other commands leave, each in a work directory of its own."""
    text = (ROOT / 'configs' / task / 'README.md').read_text().replace('\\\n', ' ')
    commands = [line.split() for line in text.splitlines() if line.startswith('bash tools/dist_train.sh')]
    runs = {}
    for _, _, config, *arguments in commands:
        cfg = Config.fromfile(ROOT / config)
        cfg.merge_from_dict(parse_options(arguments) or {})
        named = arguments[arguments.index('--work-dir') + 1] if '--work-dir' in arguments else None
        folder = named or f'work_dirs/{Path(config).stem}'
        assert folder not in runs
        runs[folder] = cfg
    pretrained = {f'{folder}/epoch_300.pth': cfg for folder, cfg in runs.items() if cfg.default_scope == 'mmpretrain'}
    first = [cfg.model.backbone.init_cfg for cfg in runs.values() if cfg.default_scope != 'mmpretrain']
    assert [init_cfg and init_cfg.checkpoint for init_cfg in first] == [*pretrained, None]
    assert ['smmix' in checkpoint for checkpoint in pretrained] == [True, False]


@pytest.mark.parametrize('path', [path for path in DENSE if '8xb2-80k' in path.stem], ids=lambda path: path.stem)
def test_schedules_of_segmentation_see_as_many_images(path):
    long = read(path)
    short = read(path.with_stem(path.stem.replace('8xb2-80k', '8xb4-40k')))
    rates = [cfg.optim_wrapper.optimizer.lr for cfg in (long, short)]
    assert rates == [1e-4, 2e-4]
    images = [cfg.train_cfg.max_iters * cfg.auto_scale_lr.base_batch_size for cfg in (long, short)]
    assert images[0] == images[1] == 80_000 * 16
    long, short = dict(flatten(long)), dict(flatten(short))
    assert {key for key in long if long[key] != short[key]} == {
        'train_dataloader.batch_size',
        'auto_scale_lr.base_batch_size',
        'optim_wrapper.optimizer.lr',
        'param_scheduler',
        'train_cfg.max_iters',
        'train_cfg.val_interval',
        'default_hooks.checkpoint.interval',
    }


@each_dense_config
def test_recipe(path):
    """The values of the published recipes, read off the merged config."""
    cfg = read(path)
    task = path.parent.name
    backbone = cfg.model.backbone
    assert (backbone.type, backbone.out_type, backbone.img_size) == ('smmix_mm.PVT', 'featmap', 224)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.weight_decay) == ('AdamW', 1e-4)
    assert 'paramwise_cfg' not in cfg.optim_wrapper
    assert cfg.optim_wrapper.clip_grad is None
    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size
    assert cfg.model.neck.in_channels == [64, 128, 320, 512]
    assert cfg.model.neck.out_channels == 256
    if task == 'sem_fpn':
        iterations = 40_000 if '40k' in path.stem else 80_000
        assert cfg.train_cfg.max_iters == iterations
        assert backbone.drop_path_rate == 0.1
        head = cfg.model.decode_head
        assert (head.channels, head.dropout_ratio, head.num_classes, head.norm_cfg.type) == (128, 0.1, 150, 'SyncBN')
        assert head.feature_strides == [4, 8, 16, 32]
        assert cfg.model.test_cfg.mode == 'whole'
        crop = next(step for step in cfg.train_pipeline if step.type == 'mmseg.RandomCrop')
        assert (crop.crop_size, crop.cat_max_ratio) == ((512, 512), 0.75)
        assert cfg.model.data_preprocessor.size == crop.crop_size
        resize = next(step for step in cfg.train_pipeline if step.type == 'RandomResize')
        assert (resize.scale, resize.ratio_range) == ((2048, 512), (0.5, 2.0))
        assert 'mmseg.PhotoMetricDistortion' in [step.type for step in cfg.train_pipeline]
    else:
        assert cfg.train_cfg.max_epochs == 12
        assert backbone.drop_path_rate == (0.1 if backbone.arch in ('tiny', 'small') else 0.0)
        rate = 2e-4 if task == 'mask_rcnn' else 1e-4
        # Published for Mask R-CNN alone.
        large = backbone.arch == 'large' and path.parent.name == 'mask_rcnn'
        assert optimizer.lr == pytest.approx(rate / 1.4 if large else rate)
        assert cfg.train_dataloader.batch_size == (1 if large else 2)
        assert cfg.val_evaluator.metric == (['bbox', 'segm'] if task == 'mask_rcnn' else 'bbox')
        neck = cfg.model.neck
        assert neck.num_outs == 5
        extras = (neck.get('start_level', 0), neck.get('add_extra_convs', False))
        assert extras == ((0, False) if task == 'mask_rcnn' else (1, 'on_input'))
    for split in ('train', 'test'):
        assert cfg[f'{split}_dataloader'].dataset.pipeline == cfg[f'{split}_pipeline']
    val, test = (cfg[f'{name}_dataloader'].to_dict() for name in ('val', 'test'))
    pipelines = val['dataset'].pop('pipeline'), test['dataset'].pop('pipeline')
    assert val == test
    # The loader has the name that the inferencers look for; it is the same one, and all else is done alike.
    assert pipelines[0][0] == dict(type='smmix_mm.LoadImage')
    assert pipelines[1][0] == dict(type='LoadImageFromFile', _scope_='smmix_mm')
    assert pipelines[0][1:] == pipelines[1][1:]
    assert cfg.val_evaluator == cfg.test_evaluator


def make_batch(cfg: Config) -> dict:
    """Two pictures of 64 x 64 pixels, with two objects each, or with a class for every pixel."""
    samples = []
    for index in range(2):
        metainfo = dict(img_id=index, img_shape=(64, 64), ori_shape=(64, 64), scale_factor=(1.0, 1.0))
        if cfg.default_scope == 'mmdet':
            boxes = torch.tensor([[8.0, 8.0, 40.0, 36.0], [20.0, 30.0, 50.0, 62.0]])
            masks = np.zeros((2, 64, 64), np.uint8)
            masks[0, 8:36, 8:40] = 1
            masks[1, 30:62, 20:50] = 1
            instances = InstanceData(
                bboxes=boxes, labels=torch.tensor([index, 79]), masks=BitmapMasks(masks, height=64, width=64)
            )
            samples.append(DetDataSample(metainfo=metainfo, gt_instances=instances))
        else:
            labels = torch.randint(0, 150, (1, 64, 64))
            labels[:, :8] = 255
            samples.append(SegDataSample(metainfo=metainfo, gt_sem_seg=PixelData(data=labels)))
    images = [torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8) for _ in samples]
    return dict(inputs=images, data_samples=samples)


@pytest.mark.parametrize('path', DISTINCT, ids=lambda path: path.stem)
def test_parameter_counts_are_the_published_ones(path):
    cfg = load(path)
    published = PARAMETERS[path.parent.name][cfg.model.backbone.arch]
    assert count_parameters(build_model(cfg)) / 1e6 == pytest.approx(published, abs=0.05)


@pytest.mark.parametrize(
    'path',
    [pytest.param(path, marks=[] if path in TINY.values() else pytest.mark.slow, id=path.stem) for path in DENSE],
)
def test_one_training_step(path):
    """On the CPU, where SyncBN of a single process is BatchNorm."""
    cfg = load(path)
    if cfg.default_scope == 'mmseg':
        # Crops are padded to this size, which would only take time here.
        cfg.model.data_preprocessor.size = (64, 64)
    model = build_model(cfg)
    model.init_weights()
    model.train()
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    groups = wrapper.optimizer.param_groups
    assert {(group['weight_decay'], group['lr']) for group in groups} == {(1e-4, cfg.optim_wrapper.optimizer.lr)}
    trained = {id(parameter) for group in groups for parameter in group['params']}
    assert trained == {id(parameter) for parameter in model.parameters()}

    before = {name: parameter.detach().clone() for name, parameter in model.backbone.named_parameters()}
    batch = make_batch(cfg)
    # Stochastic depth leaves a block out for both pictures now and then.
    for _ in range(5):
        losses = model.train_step(batch, wrapper)
        assert all(loss.isfinite() for loss in losses.values()), losses
        untrained = [name for name, parameter in model.backbone.named_parameters() if parameter.equal(before[name])]
        if not untrained:
            break
    assert not untrained
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    expected = dict(
        mask_rcnn={'loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox', 'loss_mask', 'acc'},
        retinanet={'loss_cls', 'loss_bbox'},
        sem_fpn={'decode.loss_ce', 'decode.acc_seg'},
    )
    assert set(losses) == {'loss', *expected[path.parent.name]}


def find_types(settings: object) -> Iterator[str]:
    if isinstance(settings, Mapping):
        yield from [settings['type']] if 'type' in settings else []
        settings = list(settings.values())
    if isinstance(settings, list | tuple):
        for value in settings:
            yield from find_types(value)


@each_task
def test_every_type_carries_its_scope(task):
    """But for those of mmengine and mmcv: an unprefixed FPN is another one in mmdet than in mmseg."""
    cfg = read(TINY[task])
    parts = ('model', 'train_dataloader', 'val_dataloader', 'val_evaluator', 'visualizer', 'default_hooks')
    types = set(find_types([cfg[part] for part in parts]))
    bare = {name for name in types if '.' not in name and not name.endswith('Hook')}
    assert bare <= {
        'RoIAlign',
        'nms',
        'SyncBN',
        'RandomResize',
        'DefaultSampler',
        'InfiniteSampler',
        'LocalVisBackend',
        'Pretrained',
    }
    assert {name.split('.')[0] for name in types - bare if '.' in name} == {cfg.default_scope, 'smmix_mm'}


def step_schedulers(cfg: Config, epoch_length: int | None, steps: int) -> list[float]:
    """Learning rates of the first steps; schedulers by epoch step after every ``epoch_length``."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=cfg.optim_wrapper.optimizer.lr)
    schedulers = [
        PARAM_SCHEDULERS.build(settings, default_args=dict(optimizer=optimizer)) for settings in cfg.param_scheduler
    ]
    # Once, or schedulers warn that they are the first to step.
    optimizer.step()
    rates = []
    for step in range(steps):
        rates.append(optimizer.param_groups[0]['lr'])
        for scheduler, settings in zip(schedulers, cfg.param_scheduler, strict=True):
            if not settings.by_epoch or (epoch_length and (step + 1) % epoch_length == 0):
                scheduler.step()
    return rates


@pytest.mark.parametrize('path', [path for path in DISTINCT if 'coco' in path.stem], ids=lambda path: path.stem)
def test_learning_rate_of_detection(path):
    cfg = read(path)
    epoch_length = 1000
    rates = step_schedulers(cfg, epoch_length, steps=12 * epoch_length)
    full = cfg.optim_wrapper.optimizer.lr
    assert rates[0] == pytest.approx(0.001 * full)
    for step in (1, 100, 250, 499):
        # mmengine's arrives one step early.
        assert rates[step] == pytest.approx(full * (0.001 + 0.999 * step / 500), abs=0.0021 * full)
    for epoch in range(12):
        drops = sum(epoch >= milestone for milestone in (8, 11))
        for step in (500, epoch_length - 1) if epoch == 0 else (0, epoch_length - 1):
            assert rates[epoch * epoch_length + step] == pytest.approx(full * 0.1**drops), (epoch, step)


@pytest.mark.parametrize(('schedule', 'iterations', 'full'), [('8xb2-80k', 80_000, 1e-4), ('8xb4-40k', 40_000, 2e-4)])
def test_learning_rate_of_segmentation(schedule, iterations, full):
    path = TINY['sem_fpn']
    rates = step_schedulers(read(path.with_stem(path.stem.replace('8xb2-80k', schedule))), None, iterations)
    assert rates[0] == full
    for step in (1, 100, iterations // 2, iterations - 100, iterations - 1):
        # mmengine's arrives one step early.
        assert rates[step] == pytest.approx(full * (1 - step / iterations) ** 0.9, abs=1e-4 * full)


IMAGE_SIZES = ((375, 500), (333, 1101), (47, 61))
# (x, y, width, height) of objects of the first and the last class.
OBJECTS = {0: (10, 5, 30, 20), 79: (3, 20, 21, 25)}


@pytest.fixture(scope='module')
def coco(tmp_path_factory) -> Path:
    """Three pictures with two objects each, a quadrangle and a triangle, in COCO's layout."""
    root = tmp_path_factory.mktemp('coco')
    (root / 'annotations').mkdir()
    images, annotations = [], []
    categories = [dict(id=label + 1, name=name) for label, name in enumerate(CocoDataset.METAINFO['classes'])]
    for number, (height, width) in enumerate(IMAGE_SIZES):
        images.append(dict(id=number, file_name=f'{number:012d}.jpg', height=height, width=width))
        for label, (x, y, w, h) in OBJECTS.items():
            corners = [x, y, x + w, y, x + w, y + h, x, y + h]
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number,
                    category_id=categories[label]['id'],
                    bbox=[x, y, w, h],
                    area=w * h / (2 if label else 1),
                    iscrowd=0,
                    segmentation=[corners[:6] if label else corners],
                )
            )
    for split in ('train2017', 'val2017'):
        (root / split).mkdir()
        for image in images:
            picture = np.random.default_rng(0).integers(0, 256, (image['height'], image['width'], 3), dtype=np.uint8)
            cv2.imwrite(str(root / split / image['file_name']), picture)
        content = dict(images=images, annotations=annotations, categories=categories)
        (root / 'annotations' / f'instances_{split}.json').write_text(json.dumps(content))
    return root


@pytest.fixture(scope='module')
def ade20k(tmp_path_factory) -> Path:
    """Three pictures with label maps of vertical stripes 0 to 150 (0: ignored), in ADE20K's layout."""
    root = tmp_path_factory.mktemp('ade20k')
    for split in ('training', 'validation'):
        for kind in ('images', 'annotations'):
            (root / kind / split).mkdir(parents=True)
        for number, (height, width) in enumerate(IMAGE_SIZES):
            picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
            cv2.imwrite(str(root / 'images' / split / f'{number}.jpg'), picture)
            labels = np.broadcast_to(np.arange(width) % 151, (height, width)).astype(np.uint8)
            cv2.imwrite(str(root / 'annotations' / split / f'{number}.png'), labels)
    return root


@pytest.fixture
def data_root(request, task) -> Path:
    return request.getfixturevalue('ade20k' if task == 'sem_fpn' else 'coco')


def build_dataset(cfg: Config, split: str, root: Path):
    return DATASETS.build({**cfg[f'{split}_dataloader'].dataset, 'data_root': str(root)})


@pytest.mark.parametrize('task', ['mask_rcnn', 'retinanet'])
@pytest.mark.parametrize('split', ['train', 'test'])
def test_detection_pipeline_keeps_pictures_and_objects_together(task, split, coco):
    dataset = build_dataset(load(TINY[task]), split, coco)
    assert len(dataset) == len(IMAGE_SIZES)
    flips = set()
    for index, (height, width) in enumerate(IMAGE_SIZES):
        rows, cols = scale_to(height, width, (1333, 800))
        packed = dataset[index]
        sample = packed['data_samples']
        assert packed['inputs'].shape == (3, rows, cols)
        assert sample.img_shape == (rows, cols)
        assert sample.ori_shape == (height, width)
        instances = sample.gt_instances
        assert instances.labels.tolist() == list(OBJECTS)
        boxes = torch.tensor([[x, y, x + w, y + h] for x, y, w, h in OBJECTS.values()]).float()
        if split == 'train':
            boxes *= torch.tensor([cols / width, rows / height]).repeat(2)
            flips.add(sample.flip)
            if sample.flip:
                boxes[:, [0, 2]] = cols - boxes[:, [2, 0]]
        assert torch.allclose(instances.bboxes.tensor, boxes, rtol=1e-4)
        assert ('masks' in instances) == (task == 'mask_rcnn')
        if task == 'mask_rcnn':
            assert (instances.masks.height, instances.masks.width) == (
                (rows, cols) if split == 'train' else (height, width)
            )
            full, half = instances.masks.areas / ((boxes[:, 2:] - boxes[:, :2]).prod(dim=1).numpy())
            # In whole pixels.
            assert full == pytest.approx(1, abs=0.03)
            assert half == pytest.approx(0.5, abs=0.03)


def test_segmentation_training_gives_crops_of_512(ade20k):
    cfg = load(TINY['sem_fpn'])
    dataset = build_dataset(cfg, 'train', ade20k)
    preprocess = build_model(cfg).data_preprocessor
    np.random.seed(0)
    padded = set()
    for _ in range(4):
        packed = [dataset[index] for index in range(len(IMAGE_SIZES))]
        for one in packed:
            rows, cols = one['inputs'].shape[1:]
            assert max(rows, cols) <= 512
            assert one['data_samples'].gt_sem_seg.shape == (rows, cols)
            # Stripes: 0 is ignored, the other values stand for one less.
            assert set(one['data_samples'].gt_sem_seg.data.unique().tolist()) <= {*range(150), 255}
        batch = preprocess(
            dict(inputs=[one['inputs'] for one in packed], data_samples=[one['data_samples'] for one in packed]), True
        )
        assert batch['inputs'].shape == (3, 3, 512, 512)
        for one, sample in zip(packed, batch['data_samples'], strict=True):
            rows, cols = one['inputs'].shape[1:]
            labels = sample.gt_sem_seg.data
            assert labels.shape == (1, 512, 512)
            assert (labels[:, rows:] == 255).all()
            assert (labels[:, :, cols:] == 255).all()
            padded.add(min(rows, cols) < 512)
    assert padded == {True, False}


@pytest.mark.parametrize(('height', 'width'), [*IMAGE_SIZES, (512, 513), (683, 512), (2, 1000)])
def test_segmentation_tests_at_multiples_of_32(height, width, tmp_path):
    """Rounded up, as official PVT does; the label map stays as it is."""
    cfg = load(TINY['sem_fpn'])
    cv2.imwrite(str(tmp_path / 'image.png'), np.full((height, width, 3), 90, np.uint8))
    labels = np.random.default_rng(0).integers(0, 151, (height, width), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / 'labels.png'), labels)
    packed = Compose(cfg.test_pipeline)(
        dict(
            img_path=str(tmp_path / 'image.png'),
            seg_map_path=str(tmp_path / 'labels.png'),
            label_map=None,
            reduce_zero_label=True,
            seg_fields=[],
        )
    )
    expected = tuple(math.ceil(side / 32) * 32 for side in scale_to(height, width, (2048, 512)))
    assert packed['inputs'].shape == (3, *expected)
    sample = packed['data_samples']
    assert sample.img_shape == expected
    assert sample.ori_shape == (height, width)
    wanted = np.where(labels == 0, 255, labels.astype(int) - 1)
    assert np.array_equal(sample.gt_sem_seg.data[0].numpy(), wanted)


@each_task
def test_a_runner_takes_the_config(task, data_root, tmp_path):
    """Hooks, visualizer, loops, samplers and evaluator build; batches of training and predictions have their sizes."""
    cfg = load(TINY[task])
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[name].dataset.data_root = str(data_root)
        cfg[name].update(num_workers=0, persistent_workers=False)
    for name in ('val_evaluator', 'test_evaluator'):
        if 'ann_file' in cfg[name]:
            cfg[name].ann_file = str(data_root / Path(cfg[name].ann_file).relative_to(cfg.data_root))
    cfg.work_dir = str(tmp_path)
    cfg.experiment_name = f'{task}_{id(tmp_path)}'
    runner = Runner.from_cfg(cfg)
    assert runner.train_loop is not None
    assert runner.val_loop is not None
    batch = next(iter(runner.train_dataloader))
    assert len(batch['inputs']) == 2
    if task == 'sem_fpn':
        # The smallest picture, to save time.
        tested = {key: [value] for key, value in runner.val_dataloader.dataset[2].items()}
    else:
        tested = make_batch(cfg)
    with torch.no_grad():
        runner.model.eval()
        samples = runner.model.val_step(tested)
    for sample in samples:
        if task == 'sem_fpn':
            assert sample.pred_sem_seg.shape == sample.ori_shape == IMAGE_SIZES[2]
        else:
            assert ('masks' in sample.pred_instances) == (task == 'mask_rcnn')
            assert len(sample.pred_instances) <= 100
