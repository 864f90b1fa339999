"""Our train loops in real runs of a tiny model, resumed from every step."""

import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
from resumable import differences
from tiny_runs import Points, build, outcome, registered  # noqa: F401
from torch import nn

from smmix_mm.resume.loops import _check_classes

pytestmark = pytest.mark.usefixtures('registered')


@pytest.mark.parametrize(
    ('settings', 'steps'),
    [
        (dict(), (1, 2, 4, 5, 8, 11)),
        (dict(by_epoch=False), (1, 3, 5, 8)),
        # Begun again after each pass over the data.
        (dict(by_epoch=False, sampler='DefaultSampler'), (3, 4, 9)),
        (dict(sampler='GlobalSampler'), (2, 4, 6)),
        (dict(sampler='mmpretrain.RepeatAugSampler'), (2, 6)),
        (dict(by_epoch=False, sampler='mmpretrain.RepeatAugSampler'), (5,)),
        (dict(flexible=True), (2, 4, 7, 8)),
        # The seed is drawn, and known from the checkpoint alone.
        (dict(seed=None), (2, 8)),
        (dict(by_epoch=False, seed=None), (2, 6)),
    ],
    ids=[
        'epochs',
        'iterations',
        'iterations over a finite sampler',
        "epochs of torch's sampler",
        'epochs of repeated augmentation',
        'iterations of repeated augmentation',
        'FlexibleRunner',
        'no seed',
        'iterations, no seed',
    ],
)
def test_a_run_resumed_from_any_step_is_the_run_that_never_stopped(tmp_path, settings, steps):
    """Gradients of three steps are accumulated, so most checkpoints fall between two updates."""
    build(tmp_path / 'whole', **settings).train()
    whole = outcome(tmp_path / 'whole')
    for step in steps:
        start = tmp_path / f'whole/iter_{step}.pth'
        build(tmp_path / f'from_{step}', resume=True, load_from=str(start), **settings).train()
        assert differences(whole, outcome(tmp_path / f'from_{step}')) == [], step


def test_steps_differ_and_the_seed_decides(tmp_path):
    """So that the test above does not compare constants."""
    finals = []
    for seed in (5, 5, 6):
        work_dir = tmp_path / str(len(finals))
        build(work_dir, seed=seed).train()
        finals.append(outcome(work_dir))
    assert differences(finals[0], finals[1]) == []
    assert differences(finals[0], finals[2]) != []
    assert len(set(finals[0]['/message_hub/log_scalars/train/loss/0'].tolist())) == 12


@pytest.mark.parametrize(('by_epoch', 'number'), [(True, 6), (True, 8), (False, 7)])
@pytest.mark.parametrize('stage', ['train', 'save'])
def test_sigterm_saves_after_the_step(tmp_path, stage, by_epoch, number):
    before = signal.getsignal(signal.SIGTERM)
    settings = {'default_hooks.checkpoint.interval': 4, 'by_epoch': by_epoch}
    build(tmp_path / 'whole', **settings).train()
    if stage == 'save':
        # While an ordinary checkpoint is written, which will do.
        number = 8
    hooks = [dict(type='SignalHook', stage=stage, number=number)]
    runner = build(tmp_path / 'warned', hooks=hooks, **settings)
    runner.train()
    assert runner.iter == number
    assert signal.getsignal(signal.SIGTERM) == before
    name = 'iter_8.pth' if number == 8 else f'interrupted_iter_{number}.pth'
    assert Path(tmp_path / 'warned/last_checkpoint').read_text() == str(tmp_path / 'warned' / name)
    build(tmp_path / 'warned', resume=True, **settings).train()
    assert differences(outcome(tmp_path / 'whole'), outcome(tmp_path / 'warned')) == []
    assert not list(tmp_path.glob('warned/interrupted_*'))


def test_sigterm_during_validation_ends_with_the_last_checkpoint(tmp_path):
    build(tmp_path / 'whole').train()
    runner = build(tmp_path / 'warned', hooks=[dict(type='SignalHook', stage='val', number=8)])
    runner.train()
    assert (runner.epoch, runner.iter) == (2, 8)
    assert Path(tmp_path / 'warned/last_checkpoint').read_text().endswith('/iter_8.pth')
    build(tmp_path / 'warned', resume=True).train()
    assert differences(outcome(tmp_path / 'whole'), outcome(tmp_path / 'warned')) == []


def test_sigterm_during_validation_saves_the_weights_under_training(tmp_path):
    """And not the averaged ones, which stand in the model then."""
    settings = {'default_hooks.checkpoint.interval': 100}
    build(tmp_path / 'whole', **settings).train()
    build(tmp_path / 'warned', hooks=[dict(type='SignalHook', stage='val', number=8)], **settings).train()
    assert Path(tmp_path / 'warned/last_checkpoint').read_text().endswith('/interrupted_iter_8.pth')
    build(tmp_path / 'warned', resume=True, **settings).train()
    assert differences(outcome(tmp_path / 'whole'), outcome(tmp_path / 'warned')) == []


@pytest.mark.parametrize(('classes', 'fits'), [(('a', 'b', 'c'), False), (('a', 'b'), True), (None, True)])
def test_a_head_for_other_classes_than_the_datasets_is_refused(classes, fits):
    """Whatever the type of the dataset, and whether it says its classes at all."""
    model = nn.Module()
    model.head = nn.Linear(2, 2)
    model.head.num_classes = 2
    dataset = Points()
    dataset.metainfo = dict(classes=classes)
    runner, loader = SimpleNamespace(model=model), SimpleNamespace(dataset=dataset)
    if fits:
        _check_classes(runner, loader)
    else:
        with pytest.raises(ValueError, match='num_classes of the head is 2, but Points of train_dataloader has 3 cla'):
            _check_classes(runner, loader)


@pytest.mark.parametrize('by_epoch', [True, False])
def test_data_that_give_no_batch_are_refused(tmp_path, by_epoch):
    """An epoch without steps would be done at once; an endless sampler repeats what there is."""
    settings = {'train_dataloader.drop_last': True, 'train_dataloader.batch_size': 50, 'by_epoch': by_epoch}
    settings['sampler'] = 'DefaultSampler'
    message = r'has 12 images for 1 processes with batch_size=50 each and drop_last=True'
    with pytest.raises(ValueError, match=message):
        build(tmp_path / 'run', **settings).train()
    assert not list(tmp_path.glob('run/*.pth'))
    if not by_epoch:
        build(tmp_path / 'endless', **settings | {'sampler': 'InfiniteSampler'}).train()


@pytest.mark.parametrize('flexible', [False, True])
@pytest.mark.parametrize('counts', [1, 3])
def test_the_learning_rate_is_scaled_by_the_images_of_an_update(tmp_path, flexible, counts):
    """Not by those of a batch, of which accumulation takes several."""
    settings = {
        'auto_scale_lr': dict(enable=True, base_batch_size=18),
        'optim_wrapper.accumulative_counts': counts,
        'param_scheduler': [],
        'flexible': flexible,
    }
    runner = build(tmp_path / 'run', **settings)
    runner.train()
    assert runner.optim_wrapper.optimizer.param_groups[0]['lr'] == pytest.approx(0.1 * 3 * counts / 18)


@pytest.mark.parametrize(
    ('on_averages', 'on_trained', 'stage'),
    [(True, True, 'val'), (True, True, 'val again'), (False, True, 'val'), (True, False, 'val')],
)
def test_sigterm_while_mmpretrains_hook_validates_either_weights(tmp_path, on_averages, on_trained, stage):
    """Whichever stand in the model then, both are saved as what they are."""
    average = dict(type='mmpretrain.EMAHook', momentum=0.2, evaluate_on_ema=on_averages, evaluate_on_origin=on_trained)
    settings = {'default_hooks.checkpoint.interval': 100, 'custom_hooks': [average]}
    build(tmp_path / 'whole', **settings).train()
    warn = dict(type='SignalHook', stage=stage, number=8)
    build(tmp_path / 'warned', **settings | {'custom_hooks': [average, warn]}).train()
    # The second pass is not broken off: the run ends with the next step.
    step = 9 if stage == 'val again' else 8
    assert Path(tmp_path / 'warned/last_checkpoint').read_text().endswith(f'/interrupted_iter_{step}.pth')
    build(tmp_path / 'warned', resume=True, **settings).train()
    assert differences(outcome(tmp_path / 'whole'), outcome(tmp_path / 'warned')) == []


@pytest.mark.parametrize(('by_epoch', 'expected'), [(True, (1, 4)), (False, (0, 2))])
def test_stop_training_ends_the_run_where_mmengine_ends_it(tmp_path, by_epoch, expected):
    """An epoch is finished first."""
    runner = build(tmp_path, by_epoch, hooks=[dict(type='StopHook', number=2)])
    runner.train()
    assert (runner.epoch, runner.iter) == expected


def test_epochs_differ_with_any_sampler(tmp_path):
    runner = build(tmp_path, sampler='GlobalSampler')
    runner.train()
    batches = runner.train_loop.dataloader.batch_sampler
    seen = []
    for batches.epoch in range(2):
        seen.append([(int(key), key.stream().random()) for batch in batches for key in batch])
    assert sorted(index for index, _ in seen[0]) == sorted(index for index, _ in seen[1])
    assert [index for index, _ in seen[0]] != [index for index, _ in seen[1]]
    assert not {number for _, number in seen[0]} & {number for _, number in seen[1]}


def test_other_batches_are_named(tmp_path, capfd):
    build(tmp_path / 'run', by_epoch=False).train()
    start = str(tmp_path / 'run/iter_6.pth')
    build(tmp_path / 'other', by_epoch=False, samples=9, resume=True, load_from=start).train()
    assert "'images': 12}, this run has" in capfd.readouterr()[0]


def test_an_interval_of_no_steps_is_refused(tmp_path):
    with pytest.raises(ValueError, match='interrupt_interval of train_cfg has to be at least 1, but got 0'):
        build(tmp_path, **{'train_cfg.interrupt_interval': 0}).train()


def test_an_epoch_with_other_batches_is_begun_anew(tmp_path, capfd):
    build(tmp_path / 'first').train()
    build(tmp_path / 'other', samples=18, resume=True, load_from=str(tmp_path / 'first/iter_6.pth')).train()
    warning = 'Epoch 2 starts again from its first batch: it has 6 batches now, but 2 of 4 were done'
    assert capfd.readouterr()[0].count(warning) == 1
    # Two whole epochs from there on.
    assert outcome(tmp_path / 'other', 'iter_18.pth')['/meta/iter'] == 6 + 2 * 6


def test_a_truncated_checkpoint_is_named_and_the_previous_one_used(tmp_path, capfd):
    build(tmp_path / 'run').train()
    whole = outcome(tmp_path / 'run')
    for number in (11, 12):
        path = tmp_path / f'run/iter_{number}.pth'
        path.write_bytes(path.read_bytes()[:-100])
    build(tmp_path / 'run', resume=True).train()
    text = capfd.readouterr()[0]
    assert f'{tmp_path}/run/iter_12.pth cannot be used: it is truncated' in text
    assert f'The previous checkpoint is used: {tmp_path}/run/iter_10.pth' in text
    assert differences(whole, outcome(tmp_path / 'run')) == []
