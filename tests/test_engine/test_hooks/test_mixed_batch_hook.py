"""Pictures of training batches: what they show, and that a run is the same with and without them."""

import itertools
import random
from types import SimpleNamespace

import cv2
import distributed_worker as worker
import numpy as np
import pytest
import torch
from conftest import randomize
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.registry import VISBACKENDS, init_default_scope
from mmengine.visualization.vis_backend import BaseVisBackend
from processes import run_ranks
from resumable import differences, flatten, is_own, small_config, write_images

from smmix_mm.engine import MixedBatchHook, build_runner
from smmix_mm.engine.hooks import mixed_batch_hook
from smmix_mm.registry import HOOKS, MODELS
from smmix_mm.visualization import draw_panels

NAMES = itertools.count()


class Gambler(BaseVisBackend):
    """A backend that draws from all global generators, as one that makes up names of files may."""

    images = []

    @property
    def experiment(self):
        return self

    def _init_env(self):
        pass

    def add_image(self, name, image, step=0, **kwargs):
        random.random(), np.random.rand(), torch.rand(1)
        self.images.append((name, step, image))


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    VISBACKENDS.register_module(module=Gambler, force=True)
    monkeypatch.setattr(Gambler, 'images', [])
    for split in ('train', 'val'):
        write_images(tmp_path / split, 24)
    yield tmp_path
    VISBACKENDS.module_dict.pop('Gambler')


def make_runner(folder, work_dir, hook=None, **settings):
    """One epoch of 3 steps, which draws from every global generator."""
    cfg = small_config(folder)
    cfg.merge_from_dict({
        'work_dir': str(folder / work_dir),
        'experiment_name': f'pictures_{next(NAMES)}',
        'train_dataloader.num_workers': 0,
        'train_cfg.max_epochs': 1,
        'default_hooks.checkpoint.interval': 3,
        'visualizer': dict(type='mmpretrain.UniversalVisualizer', vis_backends=[dict(type='Gambler')]),
        'log_level': 'WARNING',
        **settings,
    })  # fmt: skip
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    cfg.default_hooks.checkpoint.save_best = None
    if hook is not None:
        cfg.custom_hooks = [*cfg.custom_hooks, dict(type='smmix_mm.MixedBatchHook', **hook)]
    return build_runner(cfg)


def outcome(folder):
    content = torch.load(folder / 'iter_3.pth', weights_only=False)
    return {key: value for key, value in flatten(content, '') if not is_own(key)}


AMP = {'optim_wrapper.type': 'smmix_mm.AmpOptimWrapper', 'optim_wrapper.dtype': 'bfloat16'}
# One backend of torch.compile that needs no compiler.
COMPILED = {'default_hooks.compile': dict(type='smmix_mm.CompileBackbone', backend='eager')}
METHODS = [dict(type='smmix_mm.SMMix'), dict(type='smmix_mm.TransMix'), dict(type='smmix_mm.AutoMix')]


@pytest.mark.parametrize(
    'settings',
    [
        pytest.param({}, id='plain'),
        pytest.param(AMP, id='AMP'),
        pytest.param({'model.train_cfg.augments': METHODS}, id='methods'),
        pytest.param(COMPILED, id='compiled', marks=pytest.mark.slow),
        # mmengine's own switch, which compiles the whole step.
        pytest.param({'compile': dict(backend='eager')}, id='compiled whole', marks=pytest.mark.slow),
    ],
)
def test_a_run_with_pictures_ends_with_the_same_bits(data, settings):
    for work_dir, hook in (('without', None), ('with', dict(interval=1, num_images=3))):
        torch._dynamo.reset()
        make_runner(data, work_dir, hook, **settings).train()
    assert [(name, step) for name, step, _ in Gambler.images] == [('mixed_batch', step) for step in (1, 2, 3)]
    assert differences(outcome(data / 'without'), outcome(data / 'with')) == []


def test_the_picture_shows_what_was_trained_on(data, monkeypatch):
    """Its pixels are those that the backbone got, and its labels those of the loss."""
    drawn, seen, labels = [], [], []

    def draw(rows, title):
        drawn.append((rows, title))
        return draw_panels(rows, title)

    monkeypatch.setattr(mixed_batch_hook, 'draw_panels', draw)
    augments = {'model.train_cfg.augments': [dict(type='smmix_mm.TransMix')]}
    runner = make_runner(data, 'run', dict(interval=2, num_images=5), **augments)
    runner.model.backbone.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    criterion = type(runner.model).criterion

    def judge(model, logits, targets):
        labels.append(targets)
        return criterion(model, logits, targets)

    monkeypatch.setattr(type(runner.model), 'criterion', judge)
    (method, *_) = runner.model.mixing.methods
    between = []
    runner.register_hook(Watcher(between, method))
    runner.train()

    ((rows, title),) = drawn
    panels = [panel for row in rows for panel in row]
    assert title == 'TransMix, step 2'
    assert [len(row) for row in rows] == [4, 1]
    for panel, image, label in zip(panels, seen[1], labels[1], strict=False):
        # The model gets BGR.
        pixels = (image.flip(0).permute(1, 2, 0) * 60 + 127.5).numpy() / 255
        np.testing.assert_allclose(panel.pixels, pixels, atol=1e-6)
        lines = dict(line.rsplit(': ', 1) for line in panel.caption.splitlines())
        found = [float(lines.get(f'class{index}', 0)) for index in range(4)]
        np.testing.assert_allclose(found, label.numpy(), atol=0.0051)
    # Only in its step is there anything of it in the model.
    assert between == [False, True, False]
    assert 'losses' not in vars(method)


class Watcher(mixed_batch_hook.Hook):
    """Notes in which steps the method is watched."""

    priority = 'VERY_LOW'

    def __init__(self, found, method):
        self.found, self.method = found, method

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.found.append('losses' in vars(self.method))


def test_a_local_backend_gets_a_file(data):
    visualizer = dict(type='mmpretrain.UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
    make_runner(data, 'run', dict(interval=2), visualizer=visualizer).train()
    (path,) = (data / 'run').glob('*/vis_data/vis_image/*')
    assert path.name == 'mixed_batch_2.png'
    assert cv2.imread(str(path)).std() > 20


@pytest.mark.parametrize('setting', ['interval', 'num_images'])
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(ValueError, match=f'{setting} of MixedBatchHook has to be at least 1, but got 0'):
        HOOKS.build(dict(type='smmix_mm.MixedBatchHook', **{setting: 0}))


class Still(BaseModel):
    def forward(self, inputs, mode='loss'):
        raise AssertionError


def test_models_without_mixing_or_normalisation_are_refused(data):
    with pytest.raises(ValueError, match=r'needs a smmix_mm\.MixingClassifier.*is Still'):
        MixedBatchHook().before_train(SimpleNamespace(model=Still()))
    bare = make_runner(data, 'bare', **{'data_preprocessor.mean': None, 'data_preprocessor.std': None})
    with pytest.raises(ValueError, match='mean and std'):
        MixedBatchHook().before_train(bare)


class Shown:
    """A visualizer, or a dataset without class names."""

    def __init__(self):
        self.images = []

    def add_image(self, *image):
        self.images.append(image)


def run_rank(rank):
    """The same steps with and without pictures; the first rank alone draws them."""
    init_default_scope('mmpretrain')
    found, shown = {}, Shown()
    for pictures in (False, True):
        torch.manual_seed(0)
        preprocessor = dict(num_classes=worker.CLASSES, mean=[127.5] * 3, std=[60.0] * 3)
        classifier = MODELS.build(dict(worker.model_cfg('Mixup+SMMix'), data_preprocessor=preprocessor))
        model = MMDistributedDataParallel(randomize(classifier).train())
        optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
        runner = SimpleNamespace(model=model, visualizer=shown, train_dataloader=SimpleNamespace(dataset=shown), iter=0)
        hook = MixedBatchHook(interval=2)
        for runner.iter in range(4):
            worker.enter_step(runner.iter)
            torch.manual_seed(runner.iter)
            data = worker.batch(runner.iter, rank)
            if pictures:
                hook.before_train_iter(runner, runner.iter, data)
            model.train_step(data, optimizer)
            if pictures:
                hook.after_train_iter(runner, runner.iter, data)
        found[pictures] = [value.clone() for value in model.state_dict().values()]
    assert all(torch.equal(one, other) for one, other in zip(found[False], found[True], strict=True))
    assert [image[2] for image in shown.images] == ([2, 4] if rank == 0 else [])


def test_one_of_two_ranks_draws_and_both_train_alike():
    run_ranks(run_rank)
