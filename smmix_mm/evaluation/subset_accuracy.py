"""Accuracy where a dataset holds only some of the classes that a model knows."""

from collections.abc import Sequence

import torch
from mmpretrain.evaluation import Accuracy

from smmix_mm.registry import METRICS


@METRICS.register_module()
class SubsetAccuracy(Accuracy):
    """mmpretrain's ``Accuracy`` with the best predictions taken among the classes of the dataset only.

    This is how ImageNet-A and ImageNet-R are scored: the argmax of the 1000 scores is taken over their 200 classes.
    The classes are the metainfo ``subset`` of the dataset, labels out of all that the model knows, which
    :class:`smmix_mm.datasets.SynsetFolders` sets. A threshold ``thrs`` is compared with the score among all classes.

    Args: as mmpretrain's ``Accuracy``.

    Raises:
        ValueError: From :meth:`process`, if the dataset has no ``subset``, the model another number of classes than the
            dataset, or an image a label that is not in ``subset``.
    """

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keeps the scores of the subset, and the labels as positions in it."""
        meta = self.dataset_meta or {}
        if not meta.get('subset'):
            raise ValueError(
                'SubsetAccuracy needs the metainfo subset of the dataset, the labels that it holds, which '
                'smmix_mm.SynsetFolders sets; for a dataset of all classes use mmpretrain.Accuracy'
            )
        subset = torch.as_tensor(meta['subset'])
        kept = []
        for sample in data_samples:
            scores, label = sample['pred_score'].cpu(), sample['gt_label'].cpu()
            if len(scores) != len(meta['classes']):
                raise ValueError(
                    f'SubsetAccuracy needs scores of the {len(meta["classes"])} classes of the dataset, but the model '
                    f'has {len(scores)} classes'
                )
            position = (subset == label).nonzero().flatten()
            if len(position) != 1:
                raise ValueError(
                    f'image {sample.get("img_path")} has the label {label.tolist()}, which has to be one of the '
                    f'{len(subset)} classes in the metainfo subset of the dataset'
                )
            kept.append(dict(pred_score=scores[subset], gt_label=position))
        super().process(data_batch, kept)
