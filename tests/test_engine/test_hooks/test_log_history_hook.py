"""Real runs of 12 steps in 3 epochs of 4, validated after each on 4 batches."""

import pytest
from processes import scalars
from resumable import differences
from tiny_runs import build, outcome, registered  # noqa: F401

from smmix_mm.engine import LogHistoryHook

pytestmark = pytest.mark.usefixtures('registered')

MEANS = [
    dict(data_src='loss', log_name='epoch_loss', method_name='mean', window_size='epoch'),
    dict(data_src='loss', log_name='largest_loss', method_name='max', window_size=3),
]
BOUND = dict(type='smmix_mm.LogHistoryHook', min_length=1)


def train(work_dir, figures=MEANS, hooks=(BOUND,), **settings):
    settings['log_processor'] = dict(by_epoch=settings.get('by_epoch', True), window_size=2, custom_cfg=figures)
    runner = build(work_dir, hooks=hooks, **settings)
    runner.train()
    return runner


def logged(work_dir):
    lines = [{name: value for name, value in line.items() if 'time' not in name} for line in scalars(work_dir)]
    assert len(lines) == 15
    return lines


def lengths(runner):
    return {name: len(history.data[0]) for name, history in runner.message_hub.log_scalars.items()}


def test_logs_are_those_of_a_run_that_keeps_all_values(tmp_path):
    whole, bounded = train(tmp_path / 'whole', hooks=()), train(tmp_path / 'bounded')
    assert logged(tmp_path / 'bounded') == logged(tmp_path / 'whole')
    assert {'epoch_loss', 'largest_loss'} <= set(logged(tmp_path / 'bounded')[0])
    assert lengths(whole)['train/loss'] == lengths(whole)['train/lr'] == 12
    # An epoch has four steps, and so has its validation.
    assert lengths(bounded)['train/loss'] == lengths(bounded)['train/lr'] == lengths(bounded)['val/time'] == 4
    assert bounded.message_hub.log_scalars['train/loss'].data[0].tolist() == (
        whole.message_hub.log_scalars['train/loss'].data[0][-4:].tolist()
    )


@pytest.mark.parametrize(
    ('figure', 'hook', 'kept'),
    [
        (dict(window_size=9, method_name='mean'), BOUND, 9),
        (dict(window_size=2, method_name='mean'), BOUND | dict(min_length=6), 6),
        (dict(window_size='global', method_name='mean'), BOUND, 12),
        (dict(method_name='min'), BOUND, 12),
    ],
)
def test_as_many_are_kept_as_something_asks_for(tmp_path, figure, hook, kept):
    runner = train(tmp_path, [dict(data_src='loss', log_name='figure', **figure)], [hook])
    assert lengths(runner)['train/loss'] == kept


def test_a_resumed_run_keeps_the_same_values(tmp_path):
    whole = train(tmp_path / 'whole')
    resumed = train(tmp_path / 'resumed', resume=True, load_from=str(tmp_path / 'whole/iter_6.pth'))
    assert differences(outcome(tmp_path / 'whole'), outcome(tmp_path / 'resumed')) == []
    assert lengths(resumed) == lengths(whole)


def test_the_history_of_a_run_that_kept_all_is_cut(tmp_path):
    train(tmp_path / 'whole', hooks=(), by_epoch=False, figures=())
    start = str(tmp_path / 'whole/iter_10.pth')
    assert lengths(train(tmp_path, resume=True, load_from=start, by_epoch=False, figures=()))['train/loss'] == 4


def test_settings_are_checked():
    with pytest.raises(ValueError, match=r'min_length .* at least 1, but got 0'):
        LogHistoryHook(min_length=0)
