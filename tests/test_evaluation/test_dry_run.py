"""The evaluator is tried before the first step, on made-up predictions."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from torch import nn

from smmix_mm.evaluation import try_evaluator


def a_run(part: str, classes: int, metric: dict, names: tuple | None = ()) -> SimpleNamespace:
    model = nn.Module()
    setattr(model, part, nn.Module())
    getattr(model, part).num_classes = classes
    evaluator = Evaluator(metric)
    evaluator.dataset_meta = {} if names is None else dict(classes=names or tuple(map(str, range(classes))))
    return SimpleNamespace(model=model, val_loop=SimpleNamespace(evaluator=evaluator))


def test_more_of_the_best_than_there_are_classes_are_refused():
    metric = dict(type='mmpretrain.Accuracy', topk=(1, 5))
    with pytest.raises(ValueError, match=r'Accuracy has topk=\(1, 5\), but the head has only 3 classes.*topk=\(1,\)'):
        try_evaluator(a_run('head', 3, metric))
    try_evaluator(a_run('head', 5, metric))


def test_segmentation_without_names_of_classes_is_refused():
    metric = dict(type='mmseg.IoUMetric', iou_metrics=['mIoU'])
    with pytest.raises(ValueError, match=r'IoUMetric needs the names of the classes.*metainfo=dict.*4 names'):
        try_evaluator(a_run('decode_head', 4, metric, names=None))
    try_evaluator(a_run('decode_head', 4, metric))


def test_nothing_is_left_of_it(tmp_path, caplog):
    """No score, no result, no file, no line of the log."""
    run = a_run('head', 5, dict(type='mmpretrain.Accuracy', topk=(1, 5)))
    try_evaluator(run)
    (metric,) = run.val_loop.evaluator.metrics
    assert metric.results == []
    assert not caplog.records
    writing = a_run('decode_head', 4, dict(type='mmseg.IoUMetric', output_dir=str(tmp_path)))
    try_evaluator(writing)
    assert list(tmp_path.iterdir()) == []
    real = [dict(pred_score=torch.eye(5)[2], pred_label=torch.tensor([2]), gt_label=torch.tensor([2]))]
    metric.process({}, real)
    assert metric.evaluate(1)['accuracy/top1'] == 100


class Other(BaseMetric):
    def process(self, data_batch, data_samples):
        raise AssertionError('it knows nothing of these')

    def compute_metrics(self, results):
        raise AssertionError


def test_metrics_of_other_kinds_and_runs_without_validation_are_left_alone():
    run = a_run('head', 5, dict(type='mmpretrain.Accuracy', topk=(1,)))
    run.val_loop.evaluator.metrics = [Other()]
    try_evaluator(run)
    try_evaluator(SimpleNamespace(val_loop=None, model=run.model))
