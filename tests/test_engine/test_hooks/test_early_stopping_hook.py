"""Early stopping in real runs of a tiny model, resumed from their checkpoints."""

import pytest
from mmengine.evaluator import BaseMetric
from mmengine.logging import MessageHub
from mmengine.registry import METRICS
from tiny_runs import build, registered  # noqa: F401

pytestmark = pytest.mark.usefixtures('registered')


class Script(BaseMetric):
    """A score that was written down for each epoch."""

    scores = {}

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        # The last step of four, or in a resumed run, whose validation comes first, the next one.
        return dict(acc=self.scores[(MessageHub.get_current_instance().get_info('iter') + 1) // 4 - 1])


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Trains up to 8 epochs of 4 steps with the scores of their validations, and returns the runner."""
    METRICS.register_module(module=Script)

    def run(work_dir, scores, resume=None, **hook):
        monkeypatch.setattr(Script, 'scores', dict(enumerate(scores)))
        settings = {
            'train_cfg.max_epochs': 8,
            'val_evaluator': dict(type='Script'),
            'default_hooks.checkpoint': dict(
                type='smmix_mm.CheckpointHook', by_epoch=True, interval=1, save_best='acc', rule='greater'
            ),
            'resume': resume is not None,
            'load_from': resume and str(tmp_path / resume),
        }
        stop = dict(type='smmix_mm.EarlyStoppingHook', monitor='acc', rule='greater', min_delta=0.5) | hook
        runner = build(tmp_path / work_dir, hooks=[stop], **settings)
        runner.train()
        return runner

    yield run
    METRICS.module_dict.pop('Script')


@pytest.mark.parametrize(
    ('scores', 'hook', 'epochs'),
    [
        # The best is of the third epoch; 3.4 improves it by less than min_delta, but is a new best checkpoint.
        ([1, 2, 3, 3.4, 3, 9, 9, 9], dict(patience=2), 5),
        ([1, 2, 5, 9, 9, 9, 9, 9], dict(stopping_threshold=4, patience=5), 3),
        ([5, 4, 4.4, 3, 2, 2.4, 2.2, 1], dict(rule='less', patience=2), 7),
    ],
)
def test_a_resumed_run_stops_where_the_other_one_stopped(start, scores, hook, epochs):
    assert start('whole', scores, **hook).epoch == epochs
    for epoch in (2, epochs - 1, epochs):
        runner = start(f'from_{epoch}', scores, resume=f'whole/epoch_{epoch}.pth', **hook)
        assert runner.epoch == epochs, epoch


def test_a_run_that_was_stopped_goes_on_with_more_patience(start):
    scores = [1, 1.2, 1.4, 1, 1, 1, 1, 1]
    # The checkpoint of the third epoch is a new best one, and holds that its validation was the last.
    assert start('run', scores, patience=2).epoch == 3
    assert start('same', scores, resume='run/epoch_3.pth', patience=2).epoch == 3
    assert start('more', scores, resume='run/epoch_3.pth', patience=4).epoch == 5


def test_what_cannot_stop_a_run_is_refused(tmp_path):
    hook = dict(type='smmix_mm.EarlyStoppingHook', monitor='top1', rule='greater')
    with pytest.raises(RuntimeError, match=r"`top1.*'mean'"):
        build(tmp_path / 'other', hooks=[hook]).train()
    settings = dict(val_cfg=None, val_dataloader=None, val_evaluator=None)
    settings['default_hooks.checkpoint.save_best'] = None
    with pytest.raises(ValueError, match=r"monitor='top1'.*needs a validation, but val_cfg of the run is None"):
        build(tmp_path / 'none', hooks=[hook], **settings).train()
