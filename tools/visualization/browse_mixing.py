"""Draws batches as a config's training would mix them: target, source, their attention, and the mixed image.

Images come from the train_dataloader of the config with its own pipeline; with the same seed they are those of the
first steps of a training. Each row shows a target, its source, what the method asked of the two (such as their
attention, with the windows that it chose), and the mixed image with the shares of its label. Example:

    python tools/visualization/browse_mixing.py configs/smmix/pvt-mini_smmix_1xb32-8e_digit-scenes.py \\
        work_dirs/pvt-mini_smmix_1xb32-8e_digit-scenes/epoch_8.pth --method smmix cutmix
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from common import build_classifier, check_mixing, class_names, use_method
from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.logging import MessageHub
from mmengine.runner import Runner

from smmix_mm.datasets.layout import check_data_layout
from smmix_mm.datasets.own_data import read_config
from smmix_mm.engine import METHODS, add_method_settings, complete_dataloaders
from smmix_mm.models.classifiers.motivation import count_classes
from smmix_mm.resume.samples import ResumableLoader
from smmix_mm.visualization import draw_mixtures, name_method, save_figure, trace_mixing


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', metavar='CONFIG', help='config of a classifier')
    parser.add_argument('checkpoint', metavar='CHECKPOINT', nargs='?', help='its weights; default: initial ones')
    parser.add_argument(
        '--method',
        nargs='+',
        default=[None],
        metavar='NAME',
        help=f'methods to mix with, of {", ".join(METHODS)}. A method that needs a teacher gets CHECKPOINT. '
        'Default: what the config draws in each step',
    )
    parser.add_argument('--out', type=Path, default=Path('work_dirs/browse_mixing'), help='folder of the pictures')
    parser.add_argument('--number', type=int, default=1, help='number of batches, each in a picture (default: 1)')
    parser.add_argument('--rows', type=int, default=6, help='number of images shown of each batch (default: 6)')
    parser.add_argument('--seed', type=int, default=0, help='seed of images and draws, as of a training (default: 0)')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='override settings: key=value ...')
    add_method_settings(parser)
    args = parser.parse_args()
    for name in args.method:
        if name is not None and name not in METHODS:
            parser.error(f'--method: there is no method {name!r}; known are {", ".join(METHODS)}')
    for name, least in (('number', 1), ('rows', 1), ('seed', 0)):
        if getattr(args, name) < least:
            parser.error(f'--{name} has to be at least {least}, but got {getattr(args, name)}')
    return args


def browse(cfg: Config, args: argparse.Namespace, name: str | None) -> None:
    """Draws batches of one method, or of those of the config."""
    if name is not None:
        cfg = use_method(cfg, name, args.checkpoint, args.set)
    torch.manual_seed(args.seed)
    model = check_mixing(build_classifier(cfg, args.checkpoint, args.config), args.config).to(get_device())
    # The seed and the step that a run would draw from.
    hub = MessageHub.get_instance(f'browse_mixing_{name}')
    hub.update_info('seed', args.seed)
    loader = ResumableLoader(Runner.build_dataloader(cfg.train_dataloader, seed=args.seed), args.seed)
    classes = class_names(loader.dataset, count_classes(model.head))
    weights = args.checkpoint or 'initial weights'
    for step, data in loader.batches_from(0):
        if step == args.number:
            break
        hub.update_info('iter', step)
        batch = model.data_preprocessor(data, training=True)
        labels = torch.cat([sample.gt_label for sample in batch['data_samples']])
        method, streams = model.mixing.draw()
        mixture = trace_mixing(model, method, batch['inputs'], F.one_hot(labels, len(classes)).float(), streams)
        names = [classes[label] for label in labels.tolist()]
        title = f'{name_method(method)}, batch {step + 1}, seed {args.seed}\n{weights}'
        figure = draw_mixtures(model, {name_method(method): mixture}, names, title, args.rows)
        path = args.out / f'{name or Path(args.config).stem}_{step + 1}.png'
        save_figure(figure, path)
        print(path, flush=True)


def main() -> None:
    args = parse_args()
    cfg = read_config(args.config, args.cfg_options)
    complete_dataloaders(cfg)
    check_data_layout(cfg, ('train_dataloader',))
    for name in args.method:
        browse(cfg, args, name)


if __name__ == '__main__':
    main()
