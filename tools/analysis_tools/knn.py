"""Classifies the validation images of a config by their nearest training images, in the features of a checkpoint.

A feature is what the classifier's last layer would get. Neighbours are found by cosine similarity s, and each votes for
its class with weight exp(s / T). Example:

    python tools/analysis_tools/knn.py configs/smmix/deit-small_smmix_8xb128-300e_in1k.py \\
        work_dirs/deit-small_smmix_8xb128-300e_in1k/epoch_300.pth --k 10 20
"""

import argparse
import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmpretrain.models import ImageClassifier
from named_methods import read_config, to_table
from sklearn.neighbors import KNeighborsClassifier
from torch.utils.data import DataLoader

from smmix_mm.engine import build_model
from smmix_mm.files import write_whole
from smmix_mm.models import load_classifier


def build_loader(cfg: Config, training: bool) -> DataLoader:
    """Builds a loader of the validation images, or of the training images, which are then loaded in the same way.

    Raises:
        ValueError: If the training images are of several datasets.
    """
    dataset = cfg.val_dataloader.dataset
    if training:
        dataset = cfg.train_dataloader.dataset
        # ClassBalancedDataset and the like would repeat images.
        while 'dataset' in dataset:
            dataset = dataset.dataset
        if 'pipeline' not in dataset:
            raise ValueError(f'train_dataloader.dataset has to be one dataset with a pipeline, but is {dataset.type}')
        dataset = {**dataset, 'pipeline': cfg.val_dataloader.dataset.pipeline}
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    in_order = dict(type='DefaultSampler', shuffle=False)
    return Runner.build_dataloader({**cfg.val_dataloader.to_dict(), 'dataset': dataset, 'sampler': in_order})


@torch.no_grad()
def extract(model: ImageClassifier, loader: DataLoader) -> tuple[np.ndarray, np.ndarray]:
    """Returns features ``(N, C)`` and labels ``(N,)``.

    Raises:
        ValueError: If an image has not exactly one label.
    """
    features, labels = [], []
    for batch in loader:
        data = model.data_preprocessor(batch)
        for sample in data['data_samples']:
            found = sample.get('gt_label')
            if found is None or found.numel() != 1:
                raise ValueError(f'images need one label each, but {sample.get("img_path")} has {found}')
            labels.append(found.item())
        features.append(model.extract_feat(data['inputs'], stage='pre_logits').float().cpu())
    return torch.cat(features).numpy(), np.array(labels)


def measure(model: ImageClassifier, cfg: Config, neighbours: list[int], temperature: float) -> dict[str, Any]:
    """Top-1 accuracy in per cent by the number of neighbours, and the numbers of images.

    Raises:
        ValueError: If there are fewer training images than neighbours.
    """
    known, classes = extract(model, build_loader(cfg, training=True))
    if max(neighbours) > len(known):
        raise ValueError(f'--k has to be at most {len(known)}, the number of training images, but is {max(neighbours)}')
    asked, truth = extract(model, build_loader(cfg, training=False))
    top1 = {}
    for k in neighbours:
        # Of the distance 1 - s, which differs by a factor.
        votes = KNeighborsClassifier(k, metric='cosine', weights=lambda distances: np.exp(-distances / temperature))
        top1[k] = 100 * votes.fit(known, classes).score(asked, truth)
    return dict(top1=top1, training_images=len(known), validation_images=len(asked))


def to_markdown(report: Mapping[str, Any]) -> str:
    counts = str(report['training_images']), str(report['validation_images'])
    rows = [(str(k), f'{top1:.1f}', *counts) for k, top1 in report['top1'].items()]
    return to_table(('neighbours', 'top-1 (%)', 'training images', 'validation images'), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of a classifier of mmpretrain, with any method')
    parser.add_argument('checkpoint', help='checkpoint of a training with it')
    parser.add_argument('--k', type=int, nargs='+', default=[20], help='numbers of neighbours (default: 20)')
    parser.add_argument('--temperature', type=float, default=0.07, help='T, above 0 (default: 0.07)')
    parser.add_argument('--out', type=Path, help='JSON file; default: knn.json beside the checkpoint')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={}, help='override settings: key=value')
    args = parser.parse_args()
    if min(args.k) < 1 or not args.temperature > 0:
        parser.error(f'--k and --temperature have to be above 0, but got {args.k} and {args.temperature}')
    out = args.out or Path(args.checkpoint).with_name('knn.json')
    try:
        cfg = read_config(args, ('train_dataloader', 'val_dataloader'))
        # What only training uses of the model is not built.
        for part in ('train_cfg', 'teacher'):
            cfg.model.pop(part, None)
        model = build_model(cfg)
        load_classifier(model, args.checkpoint)
        report = measure(model.to(get_device()).eval(), cfg, args.k, args.temperature)
    except (OSError, ValueError) as error:
        raise SystemExit(f'{parser.prog}: {error}') from error
    report |= dict(
        command=shlex.join(sys.argv),
        config=args.config,
        checkpoint=args.checkpoint,
        temperature=args.temperature,
        torch=torch.__version__,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, lambda unfinished: unfinished.write_text(json.dumps(report, indent=2)))
    print(f'{to_markdown(report)}\n\nwritten to {out}')


if __name__ == '__main__':
    main()
