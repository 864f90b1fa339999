"""Losses, gradients and weights that are not finite, made at known steps of real runs."""

import copy
import itertools
import math
import os

import pytest
import torch
from marks import needs_cpu_float16
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from processes import run_ranks, scalars
from torch import nn

from smmix_mm.engine import FiniteLossHook

BATCHES = 6
RUNS = itertools.count()
SGD = dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.1)


class Linear(BaseModel):
    """Two parts of a loss; a sample's ``factor`` is multiplied into one of them, its ``slope`` into the gradients."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)
        # As a mask may be: meant.
        self.register_buffer('mask', torch.tensor([0.0, -math.inf]))

    def forward(self, inputs, data_samples=None, mode='loss'):
        out = self.layer(torch.stack(inputs))
        factor = torch.tensor([sample.factor for sample in data_samples])
        slope = torch.tensor([sample.slope for sample in data_samples])
        out.register_hook(lambda gradient: gradient * slope[:, None].to(gradient.dtype))
        return dict(loss_a=(out[:, 0].square() * factor).mean(), loss_b=out.abs().mean(), accuracy=out.sum())


class Samples(torch.utils.data.Dataset):
    """``factor`` and ``slope`` by the number of a sample; 1 for the others."""

    def __init__(self, factor=None, slope=None):
        self.factor, self.slope = factor or {}, slope or {}

    def __len__(self):
        return 2 * BATCHES

    def __getitem__(self, index):
        sample = BaseDataElement(factor=self.factor.get(index, 1.0), slope=self.slope.get(index, 1.0))
        generator = torch.Generator().manual_seed(index)
        return dict(inputs=torch.randn(3, generator=generator), data_samples=sample)


def make_runner(work_dir, hook, epochs=1, optim_wrapper=None, **samples):
    torch.manual_seed(0)
    return Runner(
        model=Linear(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            batch_size=2,
            dataset=Samples(**samples),
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='pseudo_collate'),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=optim_wrapper or dict(type='OptimWrapper', optimizer=SGD),
        default_hooks=dict(
            finite_loss=dict(type='smmix_mm.FiniteLossHook', **hook),
            checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2),
            logger=dict(type='LoggerHook', interval=1),
        ),
        experiment_name=f'{work_dir.name}_{next(RUNS)}',
        # mmengine reads it from the config alone.
        cfg=dict(model_wrapper_cfg=dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)),
        log_level='WARNING',
        launcher='pytorch' if torch.distributed.is_initialized() else 'none',
    )


def state(runner):
    return copy.deepcopy([runner.model.state_dict(), runner.optim_wrapper.state_dict()['state']])


@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_stops_at_the_first_bad_step_and_names_what_is_left(tmp_path, value):
    runner = make_runner(tmp_path, {}, epochs=2, factor={7: value})
    with pytest.raises(FloatingPointError) as raised:
        runner.train()
    message = str(raised.value)
    assert 'epoch 1, iteration 4, rank 0' in message
    assert f'loss={value}, loss_a={value}, loss_b=' in message and 'accuracy=' in message
    assert f'{tmp_path}/iter_2.pth' in message
    assert sorted(path.name for path in tmp_path.glob('*.pth')) == ['iter_2.pth']
    kept = torch.load(tmp_path / 'iter_2.pth', weights_only=False)['state_dict']
    assert kept['layer.weight'].isfinite().all() and kept['mask'].tolist() == [0, -math.inf]


def test_without_a_checkpoint_it_says_so(tmp_path):
    with pytest.raises(FloatingPointError, match=f'iteration 1, .* no checkpoint in {tmp_path} yet'):
        make_runner(tmp_path, {}, factor={0: math.nan}).train()


def test_other_figures_may_be_undefined(tmp_path, monkeypatch):
    forward = Linear.forward
    monkeypatch.setattr(
        Linear, 'forward', lambda *args, **kwargs: {**forward(*args, **kwargs), 'accuracy': torch.tensor(math.nan)}
    )
    runner = make_runner(tmp_path, {})
    runner.train()
    assert runner.iter == BATCHES


@pytest.mark.parametrize('action', ['stop', 'skip'])
def test_weights_that_are_not_finite_are_never_saved(tmp_path, monkeypatch, action):
    """Their loss was finite: the update itself went wrong, as it does with an infinite learning rate."""
    runner = make_runner(tmp_path, dict(action=action))
    step = torch.optim.SGD.step

    def spoil(optimizer, *args, **kwargs):
        step(optimizer, *args, **kwargs)
        if runner.iter == 3:
            runner.model.layer.weight.data[0, 1] = math.nan

    monkeypatch.setattr(torch.optim.SGD, 'step', spoil)
    with pytest.raises(FloatingPointError, match=r'1 of .*iteration 4, the first is layer\.weight.*iter_2\.pth'):
        runner.train()
    assert sorted(path.name for path in tmp_path.glob('*.pth')) == ['iter_2.pth']


@pytest.mark.parametrize('bad', [dict(factor={4: math.nan}), dict(slope={4: math.inf})])
@pytest.mark.parametrize('settings', [{}, dict(clip_grad=dict(max_norm=1.0)), dict(accumulative_counts=2)])
def test_skipping_leaves_out_exactly_the_bad_update(tmp_path, bad, settings):
    """Weights, momentum and weight decay are those of a run whose bad update was never asked for."""
    wrapper = dict(type='OptimWrapper', optimizer=SGD, **settings)
    runner = make_runner(tmp_path / 'skipped', dict(action='skip'), optim_wrapper=copy.deepcopy(wrapper), **bad)
    runner.train()
    left_out = (2, 3) if 'accumulative_counts' in settings else (2,)

    torch.manual_seed(0)
    model = Linear()
    reference = build_optim_wrapper(model, copy.deepcopy(wrapper))
    data, every = Samples(), settings.get('accumulative_counts', 1)
    for batch in range(BATCHES):
        if batch in left_out:
            continue
        samples = [data[2 * batch], data[2 * batch + 1]]
        losses = model([s['inputs'] for s in samples], [s['data_samples'] for s in samples])
        ((losses['loss_a'] + losses['loss_b']) / every).backward()
        if (batch + 1) % every == 0:
            reference.step()
            reference.zero_grad()

    assert runner.model.layer.weight.equal(model.layer.weight)
    assert runner.model.layer.bias.equal(model.layer.bias)
    momenta = [entry['momentum_buffer'] for entry in runner.optim_wrapper.state_dict()['state'].values()]
    expected = [entry['momentum_buffer'] for entry in reference.state_dict()['state'].values()]
    assert all(found.equal(right) for found, right in zip(momenta, expected, strict=True))
    assert runner.message_hub.get_info('skipped_updates') == 1
    logged = [line['skipped_updates'] for line in scalars(tmp_path / 'skipped')]
    assert logged == [0] * left_out[-1] + [1] * (BATCHES - left_out[-1])


@needs_cpu_float16
@pytest.mark.parametrize('fused', [False, True])
def test_steps_without_which_a_loss_scaler_finds_its_scale_do_not_count(tmp_path, fused):
    """The scaled gradients overflow first, with a loss that is finite; later the loss itself is not finite."""
    wrapper = dict(
        type='smmix_mm.AmpOptimWrapper',
        dtype='float16',
        loss_scale=dict(init_scale=2.0**20),
        optimizer=dict(type='AdamW', fused=fused),
    )
    runner = make_runner(tmp_path, dict(action='skip'), epochs=3, optim_wrapper=wrapper, factor={8: math.nan})
    runner.train()
    steps = next(iter(runner.optim_wrapper.state_dict()['state'].values()))['step']
    assert steps < 3 * BATCHES - 3, 'no overflow'
    assert runner.message_hub.get_info('skipped_updates') == 3
    assert runner.model.layer.weight.isfinite().all()


def test_too_many_skips_in_a_row_stop(tmp_path):
    runner = make_runner(tmp_path, dict(action='skip', max_skips=3), factor={0: math.nan, 4: math.nan})
    runner.train()
    assert runner.message_hub.get_info('skipped_updates') == 2
    assert runner.message_hub.get_info('skipped_updates_in_a_row') == 0
    runner = make_runner(
        tmp_path / 'many', dict(action='skip', max_skips=3), factor=dict.fromkeys((0, 4, 6, 8), math.nan)
    )
    with pytest.raises(
        FloatingPointError, match=r'iteration 5 is skipped \(4 skipped in this run\).*3 consecutive updates'
    ):
        runner.train()


def test_counts_survive_a_resume(tmp_path):
    """Two of the three skips in a row lie before the interruption."""
    hook = dict(action='skip', max_skips=3)
    make_runner(tmp_path, hook, factor=dict.fromkeys((0, 8, 10), math.nan)).train()
    runner = make_runner(tmp_path, hook, epochs=2, factor={0: math.nan})
    runner._resume = True
    with pytest.raises(
        FloatingPointError, match=r'iteration 7 is skipped \(4 skipped in this run\).*3 consecutive updates'
    ):
        runner.train()


def test_skips_beside_something_compiled(tmp_path):
    """torch.compile removes the hooks of optimisers' steps for the whole process in torch 2.1."""
    torch.compile(nn.Linear(2, 2), backend='eager')(torch.ones(1, 2))
    runner = make_runner(tmp_path, dict(action='skip'), factor={4: math.nan})
    runner.train()
    assert runner.message_hub.get_info('skipped_updates') == 1
    assert runner.model.layer.weight.isfinite().all()


def test_hook_lets_go_of_the_optimiser(tmp_path):
    runner = make_runner(tmp_path, dict(action='skip'))
    runner.train()
    runner.model.layer.weight.grad = torch.full((1, 3), math.nan)
    runner.optim_wrapper.optimizer.step()
    assert runner.model.layer.weight.isnan().all()


@pytest.mark.parametrize(
    ('settings', 'message'),
    [(dict(action='halt'), "stop, skip, but got 'halt'"), (dict(max_skips=0), 'max_skips .* at least 1, but got 0')],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        FiniteLossHook(**settings)


def train_in_two(rank, work_dir):
    """Rank 1 alone meets a bad loss, in the second of three batches: the ranks take the samples in turns."""
    os.environ['LOCAL_RANK'] = str(rank)
    torch.set_num_threads(1)
    skipping = make_runner(work_dir / 'skip', dict(action='skip'), factor={5: math.nan})
    skipping.train()
    stopping = make_runner(work_dir / 'stop', {}, factor={5: math.nan})
    with pytest.raises(FloatingPointError) as raised:
        stopping.train()
    result = [*state(skipping), skipping.message_hub.get_info('skipped_updates'), str(raised.value)]
    torch.save(result, work_dir / f'rank_{rank}.pth')


@pytest.fixture(scope='module')
def two_ranks(tmp_path_factory):
    """The folder of the runs, and what both ranks say of them."""
    work_dir = tmp_path_factory.mktemp('two_ranks')
    run_ranks(train_in_two, work_dir, timeout=300)
    return work_dir, *(torch.load(work_dir / f'rank_{rank}.pth', weights_only=False) for rank in range(2))


def test_two_ranks_skip_together(two_ranks):
    _, (weights, momenta, skipped, _), (weights_of_second, momenta_of_second, skipped_by_second, _) = two_ranks
    assert skipped == skipped_by_second == 1
    assert weights['module.layer.weight'].isfinite().all()
    for left, right in zip(weights.values(), weights_of_second.values(), strict=True):
        assert left.equal(right)
    for left, right in zip(momenta.values(), momenta_of_second.values(), strict=True):
        assert left['momentum_buffer'].equal(right['momentum_buffer'])


def test_two_ranks_stop_though_one_has_a_bad_loss(two_ranks):
    """The other one's weights are refused when they should be saved, after the same step."""
    work_dir, first, second = two_ranks
    assert 'weight tensors are not finite after epoch 1, iteration 2' in first[-1]
    assert 'the loss is not finite in epoch 1, iteration 2, rank 1' in second[-1]
    assert (work_dir / 'skip' / 'iter_2.pth').is_file()
    assert not list((work_dir / 'stop').glob('*.pth'))
