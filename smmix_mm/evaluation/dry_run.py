"""Tries the evaluator of a run before it trains, and not first when its first validation ends."""

import logging
from typing import Any

import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.runner import Runner
from torch import nn

from smmix_mm.unwrapping import unwrap_model

# Side of the made-up label maps.
SIDE = 4


def try_evaluator(runner: Runner) -> None:
    """Has the metrics of the validation score made-up predictions for two images, and forget them.

    Classification and segmentation: metrics of detection read their annotation file whole, which is checked as a file
    (:mod:`smmix_mm.datasets.layout`). Metrics of other kinds are left alone.

    Args:
        runner (Runner): Of a run; its validation loop is built by this.

    Raises:
        ValueError: If a metric fails, with its settings and the number of classes.
    """
    loop = runner.val_loop
    evaluator = getattr(loop, 'evaluator', None)
    if not isinstance(evaluator, Evaluator):
        return
    classes = _count_classes(unwrap_model(runner.model))
    for metric in evaluator.metrics:
        name = type(metric).__name__
        samples = None if getattr(metric, 'output_dir', None) else _made_up(name, classes)
        if samples is None:
            continue
        # No table of made-up scores in the log.
        logging.disable(logging.INFO)
        try:
            metric.process(data_batch={}, data_samples=samples)
            metric.evaluate(len(samples))
        except Exception as error:
            raise ValueError(_explain(metric, name, classes, error)) from error
        finally:
            logging.disable(logging.NOTSET)
            metric.results.clear()


def _count_classes(model: nn.Module) -> int | None:
    for part in ('head', 'decode_head'):
        found = getattr(getattr(model, part, None), 'num_classes', None)
        if found:
            return int(found)
    return None


def _made_up(name: str, classes: int | None) -> list[dict[str, Any]] | None:
    """Data samples as a metric gets them; None for metrics that are not tried."""
    if classes is None:
        return None
    if name == 'Accuracy':
        scores = torch.full((classes,), 1 / classes)
        return [dict(pred_score=scores, pred_label=torch.tensor([0]), gt_label=torch.tensor([0])) for _ in range(2)]
    if name == 'IoUMetric':
        labels = torch.zeros(1, SIDE, SIDE, dtype=torch.long)
        sample = dict(pred_sem_seg=dict(data=labels), gt_sem_seg=dict(data=labels), img_path='made-up.png')
        return [dict(sample) for _ in range(2)]
    return None


def _explain(metric: BaseMetric, name: str, classes: int | None, error: Exception) -> str:
    topk = getattr(metric, 'topk', None)
    if topk and max(topk) > classes:
        return (
            f'val_evaluator {name} has topk={tuple(topk)}, but the head has {classes} classes, of which it cannot take '
            f'the best {max(topk)}; set topk=(1,)'
        )
    if not (metric.dataset_meta or {}).get('classes'):
        return (
            f'val_evaluator {name} needs the names of the classes, but the dataset of val_dataloader has none: set '
            f'metainfo=dict(classes=(...)) there, {classes} names'
        )
    return f'val_evaluator {name} cannot score predictions of {classes} classes: {type(error).__name__}: {error}'
