"""Each switch that makes training faster or smaller, in mmengine's own runner, beside the run without it."""

import copy
import gc
import platform
from types import SimpleNamespace

import pytest
import torch
from conftest import backbone_cfg, head_cfg, randomize
from marks import needs_cpu_float16, needs_one_dnn
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import DATASETS, init_default_scope
from mmengine.runner import Runner, turn_on_activation_checkpointing
from mmengine.utils import digit_version
from mmpretrain.structures import DataSample
from torch.utils.data import Dataset

from smmix_mm.engine.hooks import one_dnn_linear_hook
from smmix_mm.engine.hooks.keep_memory_hook import keep_memory
from smmix_mm.engine.hooks.one_dnn_linear_hook import ConvolvedLinear
from smmix_mm.registry import HOOKS, MODELS

BATCH, STEPS = 8, 16
BLOCKS = dict(vit='backbone.layers', pvt='backbone.block2', cait='backbone.blocks', swin='backbone.stages.0.blocks')
MIXUP = dict(type='mmpretrain.Mixup', alpha=0.8)
COMPILED = dict(type='smmix_mm.CompileBackbone', backend='aot_eager')


# The hooks of a case; the names of modules for mmengine's switch instead of one.
DDP_CASES = dict(
    plain=[],
    channels_last=[],
    compiled=[COMPILED],
    recomputed=[dict(type='smmix_mm.RecomputeActivations', modules='backbone.layers')],
    one_dnn=[dict(type='smmix_mm.OneDNNLinear')] if torch.backends.mkldnn.is_available() else [],
    both=[dict(type='smmix_mm.RecomputeActivations', modules='backbone.layers'), COMPILED],
    by_mmengine=[['backbone.layers.0', 'backbone.layers.1', 'backbone.layers.2']],
)
LOADER = dict(batch_size=BATCH, num_workers=0, dataset=dict(type='TintedImages'), sampler=dict(type='DefaultSampler'))
VALIDATION = dict(
    val_dataloader=LOADER,
    val_cfg=dict(),
    val_evaluator=dict(type='mmpretrain.Accuracy', topk=(1,)),
)


@DATASETS.register_module(force=True)
class TintedImages(Dataset):
    """Noise, tinted by the class: a few steps learn it."""

    def __len__(self):
        return BATCH * STEPS

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        image = torch.randint(0, 100, (3, 32, 32), dtype=torch.uint8, generator=generator)
        image[index % 3] += 120
        return dict(inputs=image, data_samples=DataSample().set_gt_label(index % 3))


class Recorder(Hook):
    """Losses of the steps, and what a test wants to know besides."""

    priority = 'LOWEST'

    def __init__(self, look=None):
        self.losses, self.seen, self.look = [], [], look

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append(outputs['loss'].item())
        if self.look is not None:
            self.seen.append(self.look(runner))


@pytest.fixture
def train(make_classifier, tmp_path):
    """Trains one epoch from weights that depend on the family alone: ``train('vit', custom_hooks=[...])``."""
    runs = []

    def run(
        family, model=None, channels_last=False, optim_wrapper=None, custom_hooks=(), look=None, validate=False, **cfg
    ):
        torch.manual_seed(0)
        common = dict(backbone=dict(drop_path_rate=0.2), data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3)) | (
            model or {}
        )
        start = make_classifier(family, **common)
        found = make_classifier(family, channels_last=channels_last, **common)
        found.load_state_dict(start.state_dict())
        found._is_init = True
        recorder = Recorder(look)
        runs.append(family)
        runner = Runner(
            model=found,
            work_dir=str(tmp_path),
            train_dataloader=copy.deepcopy(LOADER),
            train_cfg=dict(by_epoch=True, max_epochs=1),
            **(copy.deepcopy(VALIDATION) if validate else {}),
            optim_wrapper={'optimizer': dict(type='AdamW', lr=3e-3), **(optim_wrapper or {})},
            custom_hooks=[*copy.deepcopy(list(custom_hooks)), recorder],
            default_hooks=dict(checkpoint=None, logger=dict(type='LoggerHook', interval=1000)),
            randomness=dict(seed=0),
            experiment_name=f'{tmp_path.name}_{len(runs)}',
            default_scope='mmpretrain',
            log_level='WARNING',
            cfg=cfg,
        )
        runner.train()
        weights = {name: value.detach().clone() for name, value in runner.model.state_dict().items()}
        return recorder, weights, runner

    return run


def same(first, second, **tolerance):
    assert first.keys() == second.keys()
    for name, value in second.items():
        torch.testing.assert_close(first[name], value, msg=name, **tolerance)


def learned(losses):
    """The second half of the steps has a lower loss than the first half, by more than chance between batches."""
    half = len(losses) // 2
    assert sum(losses[half:]) < 0.97 * sum(losses[:half]), losses


@pytest.mark.parametrize('family', ['vit', 'pvt', 'cait', 'swin'])
def test_what_changes_no_figure(train, family):
    """Both ways to recompute activations: the same weights to the bit, drop path and all. Channels-last: nearly.

    Which kernel convolves in which layout, and so the last bits, depends on the processor.
    """
    expected, weights, _ = train(family)
    learned(expected.losses)
    blocks = BLOCKS[family]
    for settings in (
        dict(custom_hooks=[dict(type='smmix_mm.RecomputeActivations', modules=blocks)]),
        dict(activation_checkpointing=[f'{blocks}.0', f'{blocks}.1']),
    ):
        found, others, _ = train(family, **settings)
        assert found.losses == expected.losses, settings
        same(others, weights, rtol=0, atol=0)
    found, _, _ = train(family, channels_last=True)
    torch.testing.assert_close(found.losses[:3], expected.losses[:3], rtol=1e-4, atol=0)
    learned(found.losses)


@needs_one_dnn
@pytest.mark.parametrize('family', BLOCKS)
def test_convolved_linear_layers_change_rounding_alone(train, family, monkeypatch):
    """Recomputed, averaged and compiled too, as far as the losses of the first steps tell."""
    torch._dynamo.reset()
    expected, _, _ = train(family)
    for limit in ('FEWEST', 'NOT_CONVOLVED'):
        monkeypatch.setattr(one_dnn_linear_hook, limit, 0)
    together = [dict(type='smmix_mm.RecomputeActivations', modules=BLOCKS[family]), dict(type='EMAHook')]
    for hooks in ([], together, *([[COMPILED]] if family == 'vit' else [])):
        found, _, runner = train(family, custom_hooks=[dict(type='smmix_mm.OneDNNLinear'), *hooks])
        assert type(runner.model.head.layers.head if family == 'vit' else runner.model.head.fc) is ConvolvedLinear
        torch.testing.assert_close(found.losses[:3], expected.losses[:3], rtol=1e-4, atol=0)
        learned(found.losses)


@pytest.mark.slow
@pytest.mark.parametrize('family', ['vit', 'pvt'])
def test_compilation_changes_no_figure(train, family):
    """Alone, and with all that goes with it, averaged weights included."""
    expected, weights, _ = train(family)
    torch._dynamo.reset()
    together = [COMPILED, dict(type='smmix_mm.RecomputeActivations', modules=BLOCKS[family]), dict(type='EMAHook')]
    for hooks in ([COMPILED], together):
        found, others, _ = train(family, custom_hooks=hooks)
        torch.testing.assert_close(found.losses, expected.losses, rtol=1e-6, atol=0)
        same(others, weights, rtol=1e-5, atol=1e-6)
    found, _, _ = train(family, custom_hooks=together, channels_last=True)
    torch.testing.assert_close(found.losses[:3], expected.losses[:3], rtol=1e-4, atol=0)
    learned(found.losses)


@pytest.mark.parametrize(
    ('family', 'dtype', 'tolerance'),
    [
        *((family, 'bfloat16', 0.05) for family in BLOCKS),
        pytest.param('vit', 'float16', 0.01, marks=needs_cpu_float16),
        *(
            pytest.param(family, 'float16', 0.01, marks=[needs_cpu_float16, pytest.mark.slow])
            for family in list(BLOCKS)[1:]
        ),
    ],
)
def test_mixed_precision_trains_and_stays_close(train, family, dtype, tolerance):
    """The first steps are those of float32, as far as the dtype goes; in all of them the model learns."""
    # CutMix's placement, so that rounding moves no region. No drop path, which draws in the dtype of its input.
    model = dict(augments=[MIXUP, dict(type='smmix_mm.SMMix', placement='cutmix')], backbone=dict(drop_path_rate=0.0))
    expected, weights, _ = train(family, model=model)
    amp = dict(type='smmix_mm.AmpOptimWrapper', dtype=dtype, loss_scale=dict(init_scale=256.0))
    found, others, runner = train(family, model=model, optim_wrapper=amp)
    torch.testing.assert_close(found.losses[:3], expected.losses[:3], rtol=tolerance, atol=0)
    learned(found.losses)
    assert all(value.dtype == weights[name].dtype for name, value in others.items())
    if dtype == 'float16':
        assert runner.optim_wrapper.loss_scaler.get_scale() == 256
        saved = runner.optim_wrapper.state_dict()['loss_scaler']
        assert saved['_growth_tracker'] == STEPS  # no step was left out


def test_all_switches_together(train, request):
    """They train: bfloat16, compiled, channels-last, recomputed, averaged, with fused AdamW and memory kept."""
    torch._dynamo.reset()
    glibc = platform.libc_ver()[0] == 'glibc'
    if glibc:
        request.addfinalizer(lambda: keep_memory(False))
    found, _, _ = train(
        'vit',
        channels_last=True,
        optim_wrapper=dict(
            type='smmix_mm.AmpOptimWrapper',
            dtype='bfloat16',
            optimizer=dict(type='AdamW', lr=3e-3, fused=digit_version(torch.__version__) >= digit_version('2.4')),
        ),
        custom_hooks=[
            COMPILED,
            dict(type='smmix_mm.RecomputeActivations', modules='backbone.layers'),
            dict(type='EMAHook'),
            *([dict(type='smmix_mm.OneDNNLinear')] if torch.backends.mkldnn.is_available() else []),
            *([dict(type='smmix_mm.KeepMemory')] if glibc else []),
        ],
    )
    learned(found.losses)


@pytest.mark.parametrize('family', ['vit', 'pvt'])
def test_averaged_weights_follow_their_recursion(train, make_classifier, family):
    """With AutoMix, which has a momentum model of its own, and a teacher, which is shared and not copied."""
    teacher = make_classifier('vit', type='mmpretrain.ImageClassifier')
    augments = [dict(type='smmix_mm.SMMix', motivated_by='teacher'), dict(type='smmix_mm.AutoMix')]

    def look(runner):
        return {name: value.detach().clone() for name, value in runner.model.named_parameters()}

    momentum = 0.25
    hook = dict(type='EMAHook', momentum=momentum, priority='LOW')
    found, _, runner = train(family, model=dict(augments=augments, teacher=teacher), custom_hooks=[hook], look=look)
    averaged = next(part for part in runner.hooks if type(part).__name__ == 'EMAHook').ema_model.module
    expected = found.seen[0]
    for weights in found.seen[1:]:
        expected = {name: (1 - momentum) * value + momentum * weights[name] for name, value in expected.items()}
    same(dict(averaged.named_parameters()), expected, rtol=1e-5, atol=1e-6)
    assert averaged.teacher is runner.model.teacher
    assert averaged.mixing.methods[1].momentum_model is not runner.model.mixing.methods[1].momentum_model


@pytest.mark.parametrize('compiled', [False, pytest.param(True, marks=pytest.mark.slow)])
def test_validation_sees_the_averaged_weights(train, compiled):
    """Compiled or not: mmengine exchanges what the parameters hold, not the parameters."""
    torch._dynamo.reset()
    outputs, images = {}, torch.randn(2, 3, 32, 32)

    class Look(Hook):
        priority = 'LOWEST'

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            self.compare(runner, 'training')

        def before_val_epoch(self, runner):
            self.compare(runner, 'validation')

        def compare(self, runner, when):
            training = runner.model.training
            with torch.no_grad():
                outputs[when] = runner.model.eval()(images)
                averaged = next(part for part in runner.hooks if type(part).__name__ == 'EMAHook').ema_model
                outputs[f'{when}, other'] = averaged.module.eval()(images)
            runner.model.train(training)

    hooks = [dict(type='EMAHook', momentum=0.25), Look(), *([COMPILED] if compiled else [])]
    train('vit', custom_hooks=hooks, validate=True)
    for first, second in (('training', 'validation, other'), ('training, other', 'validation')):
        torch.testing.assert_close(outputs[first], outputs[second], rtol=1e-5, atol=1e-5)
    assert (outputs['training'] - outputs['validation']).abs().max() > 1e-3


def train_in_ddp(rank, folder):
    """Gradients of three steps in DDP, as the model is and with each switch; of two processes."""
    torch.set_num_threads(1)
    init_default_scope('mmpretrain')
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    one_dnn_linear_hook.FEWEST = one_dnn_linear_hook.NOT_CONVOLVED = 0
    found = {}
    for name, hooks in DDP_CASES.items():
        torch.manual_seed(0)
        parts = dict(backbone=backbone_cfg('vit', drop_path_rate=0.2), head=head_cfg('vit'))
        cfg = dict(type='smmix_mm.MixingClassifier', train_cfg=dict(augments=[MIXUP, dict(type='smmix_mm.SMMix')]))
        start = randomize(MODELS.build({**cfg, **parts}))
        # Filled with random numbers in another order, were it not for the weights of the first.
        module = MODELS.build({**cfg, **parts, 'channels_last': name == 'channels_last'})
        module.load_state_dict(start.state_dict())
        model = MMDistributedDataParallel(module.train(), broadcast_buffers=False)
        for hook in copy.deepcopy(hooks):
            if isinstance(hook, list):
                turn_on_activation_checkpointing(model.module, hook)
            else:
                for when in ('before_run', 'before_train'):
                    getattr(HOOKS.build(hook), when)(SimpleNamespace(model=model))
        MessageHub.get_instance(f'ddp_{name}')
        found[name] = []
        for step in range(3):
            MessageHub.get_current_instance().update_info('iter', step)
            MessageHub.get_current_instance().update_info('seed', 1)
            torch.manual_seed(10 * step + rank)
            data = dict(inputs=torch.randn(4, 3, 32, 32), data_samples=[DataSample().set_gt_label(i) for i in range(4)])
            model.zero_grad()
            sum(model(**model.module.data_preprocessor(data, True), mode='loss').values()).backward()
            found[name].append({key: weight.grad.clone() for key, weight in model.module.named_parameters()})
        del model
    torch.save(found, f'{folder}/rank{rank}.pt')
    gc.collect()
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_ddp_takes_each_switch(tmp_path):
    """Gradients of all steps, those of Mixup too, which leave the region classifier out, are those of plain DDP."""
    torch.multiprocessing.spawn(train_in_ddp, args=(str(tmp_path),), nprocs=2)
    ranks = [torch.load(tmp_path / f'rank{rank}.pt') for rank in range(2)]
    for name in DDP_CASES:
        for step in range(3):
            same(ranks[0][name][step], ranks[1][name][step], rtol=0, atol=0)
            same(ranks[0][name][step], ranks[0]['plain'][step], rtol=1e-5, atol=1e-6)
    assert any(step['region_head.weight'].any() for step in ranks[0]['plain'])
    assert not all(step['region_head.weight'].any() for step in ranks[0]['plain'])
