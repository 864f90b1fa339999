"""Draws class activation maps (Grad-CAM) of unmixed and mixed images, for both of their labels.

A few validation images of the first config are mixed. Three rows show the source, the target and what became of them;
columns show where each model finds the source's class, y_A, and the target's, y_B. All models see the same images.
Needs the package grad-cam. Example:

    python tools/visualization/vis_cam.py CONFIG CHECKPOINT --other CONFIG2 CHECKPOINT2 --method cutmix
"""

import argparse
import textwrap
from pathlib import Path

import torch
import torch.nn.functional as F
from common import build_classifier, check_mixing, class_names, use_method
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.device import get_device
from mmengine.registry import DATASETS
from torch import Tensor, nn

from smmix_mm.datasets.layout import check_data_layout
from smmix_mm.datasets.own_data import read_config
from smmix_mm.engine import METHODS, add_method_settings
from smmix_mm.models.classifiers.motivation import count_classes
from smmix_mm.streams import step_streams
from smmix_mm.visualization import (
    Mixture,
    Panel,
    describe_shares,
    draw_panels,
    map_class_activation,
    name_method,
    overlay,
    save_figure,
    shorten_name,
    to_pictures,
    trace_mixing,
)

# Characters of a model's name that fit above a panel.
TITLE_LENGTH = 24


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', metavar='CONFIG', help='config of a classifier, which mixes the images')
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='its weights')
    parser.add_argument(
        '--other',
        nargs=2,
        action='append',
        default=[],
        metavar=('CONFIG2', 'CHECKPOINT2'),
        help='another classifier of the same classes, shown beside it; may be repeated',
    )
    parser.add_argument(
        '--method',
        choices=METHODS,
        metavar='NAME',
        help=f'method to mix with, of {", ".join(METHODS)}; default: the last one of CONFIG',
    )
    parser.add_argument('--out', type=Path, default=Path('work_dirs/vis_cam.png'), help='file of the picture')
    parser.add_argument('--number', type=int, default=2, help='number of mixed images (default: 2)')
    parser.add_argument('--seed', type=int, default=0, help='seed of the draws of the method (default: 0)')
    add_method_settings(parser)
    args = parser.parse_args()
    for name, least in (('number', 1), ('seed', 0)):
        if getattr(args, name) < least:
            parser.error(f'--{name} has to be at least {least}, but got {getattr(args, name)}')
    return args


def read_batch(cfg: Config, model: nn.Module, number: int) -> tuple[Tensor, list[int], list[str]]:
    """Reads ``2 * number`` validation images, evenly spread over the dataset, their labels and all class names."""
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    classes = class_names(dataset, count_classes(model.head))
    count = 2 * number
    if len(dataset) < count:
        raise ValueError(f'--number {number} needs {count} validation images, but there are {len(dataset)}')
    # From the middle of each part, since ends of a dataset of sorted classes would be of the same two.
    chosen = [(2 * index + 1) * len(dataset) // (2 * count) for index in range(count)]
    batch = model.data_preprocessor(default_collate([dataset[index] for index in chosen]))
    return batch['inputs'], [sample.gt_label.item() for sample in batch['data_samples']], classes


def check_alike(models: dict[str, nn.Module]) -> None:
    """Refuses models that take other images, or have another number of classes, than the first."""
    (first, model), *others = models.items()
    for name, other in others:
        for what, found, needed in (
            ('classes', count_classes(other.head), count_classes(model.head)),
            *(
                (part, *(getattr(one.data_preprocessor, part).flatten().tolist() for one in (other, model)))
                for part in ('mean', 'std')
            ),
        ):
            if found != needed:
                raise ValueError(
                    f'all models have to take the same images and have the same classes, but {name} has '
                    f'{what}={found}, and {first} {needed}'
                )


def draw_pair(
    models: dict[str, nn.Module], mixture: Mixture, index: int, labels: list[int], classes: list[str]
) -> list[list[Panel]]:
    """Three rows: the source, the target and the mixed image, with the maps of each model for both labels."""
    source = int(mixture.sources[index])
    images = torch.stack([mixture.images[source], mixture.images[index], mixture.mixed[index]])
    pictures = to_pictures(next(iter(models.values())).data_preprocessor, images)
    names = [classes[label] for label in labels]
    rows = [
        [Panel(pictures[0], 'source', f'y_A: {shorten_name(names[source])}')],
        [Panel(pictures[1], 'target', f'y_B: {shorten_name(names[index])}')],
        [Panel(pictures[2], 'mixed', describe_shares(names, mixture.shares[index].tolist()))],
    ]
    for name, model in models.items():
        with torch.no_grad():
            chances = model(images).softmax(dim=1)
        for label, role in ((labels[source], 'y_A'), (labels[index], 'y_B')):
            heat = overlay(pictures, map_class_activation(model, images, [label] * len(images)))
            for row, picture, chance in zip(rows, heat, chances[:, label].tolist(), strict=True):
                title = '' if row is not rows[0] else f'{textwrap.fill(name, TITLE_LENGTH)}\n{role}'
                row.append(Panel(picture, title, f'{role}: p = {chance:.2f}'))
    return rows


def main() -> None:
    args = parse_args()
    cfg = read_config(args.config)
    if args.method:
        cfg = use_method(cfg, args.method, args.checkpoint, args.set)
    check_data_layout(cfg, ('val_dataloader',))
    model = check_mixing(build_classifier(cfg, args.checkpoint, args.config), args.config).to(get_device())
    models: dict[str, nn.Module] = {Path(args.config).stem: model}
    for config, checkpoint in args.other:
        name = Path(config).stem if Path(config).stem not in models else checkpoint
        models[name] = build_classifier(read_config(config), checkpoint, config).to(get_device())
    check_alike(models)
    images, labels, classes = read_batch(cfg, model, args.number)
    targets = F.one_hot(torch.tensor(labels, device=images.device), len(classes)).float()
    # The last one is Unmixed, in the steps that are left over.
    *methods, method = model.mixing.methods
    method = methods[-1] if methods else method
    mixture = trace_mixing(model, method, images, targets, step_streams(args.seed, 0))
    rows = [row for index in range(args.number) for row in draw_pair(models, mixture, index, labels, classes)]
    title = f'Grad-CAM of images mixed by {name_method(method)}, seed {args.seed}'
    save_figure(draw_panels(rows, title, 'class activation'), args.out)
    print(args.out)


if __name__ == '__main__':
    main()
