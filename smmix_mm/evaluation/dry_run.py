"""Tries the evaluator of a run before training, so that an error does not wait for the first validation."""

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
    """Lets the validation metrics score made-up predictions for two images, then clears their results.

    Only metrics of classification and segmentation are tried. Detection metrics would read their whole annotation
    file, which :mod:`smmix_mm.datasets.layout` checks. Other metrics are skipped.

    Args:
        runner (Runner): Runner of the training; this builds its validation loop.

    Raises:
        ValueError: If a metric fails. The message gives its settings and the number of classes.
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
        # Keeps the made-up scores out of the log.
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
    """Returns data samples as a metric receives them; None for metrics that are not tried."""
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
        return f'val_evaluator {name} has topk={tuple(topk)}, but the head has only {classes} classes; set topk=(1,)'
    if not (metric.dataset_meta or {}).get('classes'):
        return (
            f'val_evaluator {name} needs the names of the classes, but the dataset of val_dataloader has none: set '
            f'metainfo=dict(classes=(...)) there, {classes} names'
        )
    return f'val_evaluator {name} cannot score predictions of {classes} classes: {type(error).__name__}: {error}'
