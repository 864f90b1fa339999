"""The best of the classes that a dataset has."""

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmpretrain.structures import DataSample

from smmix_mm.datasets.synset_folders import read_labels

SIX = dict(classes=tuple('abcdef'), subset=(1, 3, 4))


def score(scores, labels, meta, **settings):
    evaluator = Evaluator(dict(type='smmix_mm.SubsetAccuracy', **settings))
    evaluator.dataset_meta = meta
    samples = [
        DataSample(metainfo=dict(img_path=f'{index}.jpg')).set_pred_score(torch.as_tensor(row)).set_gt_label(int(label))
        for index, (row, label) in enumerate(zip(scores, labels, strict=True))
    ]
    for sample in samples:
        evaluator.process([sample])
    return evaluator.evaluate(len(samples))


def test_the_best_of_the_subset_by_hand():
    scores = [
        # a     b     c     d     e     f
        [0.90, 0.04, 0.00, 0.03, 0.02, 0.01],  # b: right, though a is the best of all
        [0.10, 0.20, 0.30, 0.25, 0.05, 0.10],  # d: right
        [0.00, 0.05, 0.00, 0.15, 0.10, 0.70],  # d, then e: right in the second place
        [0.00, 0.30, 0.10, 0.20, 0.10, 0.30],  # b, then d: e is wrong in both
    ]
    assert score(scores, [1, 3, 4, 4], SIX, topk=(1, 2, 3)) == {
        'accuracy/top1': 50.0,
        'accuracy/top2': 75.0,
        'accuracy/top3': 100.0,
    }


def test_the_200_classes_by_brute_force():
    stream = np.random.default_rng(0)
    subset = list(read_labels('imagenet_r').values())
    logits = stream.standard_normal((60, 1000))
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = stream.choice(subset, 60)
    # Half are right: their score is the highest of the subset, but not of all 1000.
    for row, label in zip(scores[:30], labels[:30], strict=True):
        row[label] = max(row[subset]) * 1.01
        row[0] = 1
    best = [max(subset, key=lambda index, row=row: row[index]) for row in scores]
    expected = 100 * np.mean([one == label for one, label in zip(best, labels, strict=True)])
    meta = dict(classes=range(1000), subset=tuple(subset))
    assert score(scores, labels, meta)['accuracy/top1'] == pytest.approx(expected)
    assert 50 <= expected < 60
    assert (scores[:30].argmax(axis=1) != labels[:30]).all()


def test_misfits_are_named():
    with pytest.raises(ValueError, match='needs scores of the 6 classes of the dataset, but the model has 3 classes'):
        score([[0.2, 0.3, 0.5]], [1], SIX)
    with pytest.raises(ValueError, match=r'image 0.jpg has the label \[2\], which has to be one of the 3 classes'):
        score([[0.2] * 6], [2], SIX)
    for meta in (dict(classes=tuple('abcdef')), None):
        with pytest.raises(ValueError, match=r'needs the metainfo subset of the dataset.*mmpretrain\.Accuracy'):
            score([[0.2] * 6], [1], meta)
    with pytest.raises(ValueError, match='Top-5 accuracy is unavailable since the number of categories is 3'):
        score([[0.2] * 6], [1], SIX, topk=5)
