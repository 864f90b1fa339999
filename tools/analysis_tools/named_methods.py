"""What the analyses of named methods share: their options, a model with one method, and the validation images."""

import argparse
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch import Tensor
from torch.utils.data import DataLoader

from smmix_mm.checkpoint import load_except, read_weights
from smmix_mm.datasets import own_data
from smmix_mm.datasets.layout import check_data_layout
from smmix_mm.engine import (
    METHODS,
    add_method_settings,
    build_model,
    complete_dataloaders,
    needs_teacher,
    read_method,
    with_method,
    with_teacher,
)
from smmix_mm.models import MixingClassifier
from smmix_mm.models.pretrained import NOT_EVALUATED

MIXING = [name for name in METHODS if name != 'unmixed']
Measured = TypeVar('Measured')


def add_arguments(parser: argparse.ArgumentParser, methods: Iterable[str] | None = None) -> None:
    """Adds the options of the analyses; without default ``methods`` they have to be given."""
    parser.add_argument('config', help='a classification config; its own method is not used')
    parser.add_argument('checkpoint', help='checkpoint of a training with it, with any method')
    parser.add_argument(
        '--methods',
        nargs='+',
        choices=MIXING,
        metavar='METHOD',
        default=methods and list(methods),
        required=not methods,
        help=f'mix by each of these alone, without Mixup in other batches: {", ".join(MIXING)}',
    )
    parser.add_argument(
        '--teacher', metavar='CHECKPOINT', help='checkpoint of this model, the teacher of methods that need one'
    )
    add_method_settings(parser)
    parser.add_argument('--seed', type=int, default=0, help='seed of pairs and regions (default: 0)')
    parser.add_argument(
        '--batch-size',
        type=int,
        default=16,
        help='images that are mixed at once (default: 16); most methods draw one region size for all of them',
    )
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={}, help='override settings: key=value')


def parse_args(parser: argparse.ArgumentParser) -> argparse.Namespace:
    args = parser.parse_args()
    if args.batch_size < 2:
        parser.error(f'--batch-size has to be at least 2, since images are mixed in pairs, but got {args.batch_size}')
    if args.seed < 0:
        parser.error(f'--seed has to be at least 0, but got {args.seed}')
    return args


def read_config(args: argparse.Namespace, loaders: Sequence[str] = ('val_dataloader',)) -> Config:
    """Reads the config, and checks that it is a classifier's and that the images of its loaders are there.

    Raises:
        FileNotFoundError, ValueError: If not.
    """
    cfg = own_data.read_config(args.config, args.cfg_options)
    model = cfg.get('model') or {}
    if not (model.get('backbone') and model.get('head')):
        raise ValueError(f'{args.config} has to be the config of a classifier, but model.type is {model.get("type")}')
    for loader in loaders:
        if not (cfg.get(loader) or {}).get('dataset'):
            raise ValueError(f'{args.config} has no {loader}, whose images are needed here')
    complete_dataloaders(cfg)
    check_data_layout(cfg, loaders)
    return cfg


def build_alone(cfg: Config, name: str | None, args: argparse.Namespace) -> MixingClassifier:
    """Builds the model of a config with one method, or with none, and loads the checkpoint, in evaluation mode.

    Raises:
        ValueError: If the method needs a teacher and there is none, or mixes by weights that the checkpoint lacks; if
            the checkpoint is of another model.
    """
    mixing = dict(augments=[])
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    teacher = False
    if name is not None:
        # If Mixup takes the other steps, it is listed first.
        augment = read_method(name, args.set).mixing.augments[-1]
        teacher = needs_teacher([augment])
        mixing = dict(augments=[augment])
    if teacher and not args.teacher:
        raise ValueError(f'{name} needs a teacher: set --teacher CHECKPOINT, a checkpoint of this model')
    cfg = with_method(cfg, Config(dict(mixing=mixing)))
    if teacher:
        cfg = with_teacher(cfg, args.teacher)
    model = build_model(cfg)
    if model.teacher is not None:
        model.teacher.load()
    load(model, args.checkpoint, name)
    return model.to(get_device()).eval()


def load(model: MixingClassifier, checkpoint: str, method: str | None) -> None:
    weights = read_weights(checkpoint)
    kept = set(NOT_EVALUATED)
    if any(part.startswith('mixing.') for part in model.state_dict()):
        if not any(part.startswith('mixing.') for part in weights):
            raise ValueError(
                f'{method} mixes by a network that is trained along with the model, but {checkpoint} holds none: it '
                f'needs a checkpoint that was trained with {method}'
            )
        kept.remove('mixing')
    load_except(model, weights, checkpoint, kept)


def build_loader(cfg: Config, args: argparse.Namespace, **settings: Any) -> DataLoader:
    """Builds the loader of the validation images in a random order of ``--seed``, with other settings if given.

    In the order of the files, the pairs of a batch would be of one class.
    """
    drawn = dict(batch_size=args.batch_size, sampler=dict(type='DefaultSampler', shuffle=True))
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    return Runner.build_dataloader({**cfg.val_dataloader.to_dict(), **drawn, **settings}, seed=args.seed)


def preprocess(model: MixingClassifier, batch: dict) -> tuple[Tensor, Tensor]:
    """Returns preprocessed images ``(B, C, H, W)`` and their labels ``(B, classes)``.

    Raises:
        ValueError: If an image has not exactly one label.
    """
    data = model.data_preprocessor(batch)
    for sample in data['data_samples']:
        found = sample.get('gt_label')
        if found is None or found.numel() != 1:
            labels = 'none' if found is None else found.tolist()
            raise ValueError(f'images to be mixed need one label each, but {sample.get("img_path")} has {labels}')
    return data['inputs'], torch.stack([sample.gt_score for sample in data['data_samples']]).float()


def measure_each(measures: Mapping[str, Callable[[], Measured]]) -> tuple[dict[str, Measured], dict[str, str]]:
    """Measures everything that can be, and returns the results and why others were left out.

    Raises:
        ValueError: If all were left out.
    """
    results, left_out = {}, {}
    for name, measure in measures.items():
        try:
            results[name] = measure()
        except (ValueError, ImportError, OSError) as error:
            left_out[name] = str(error)
            print(f'{name} is left out: {error}', file=sys.stderr, flush=True)
    if not results:
        raise ValueError(f'none of {", ".join(left_out)} could be measured')
    return results, left_out


def describe(args: argparse.Namespace) -> dict[str, Any]:
    """What is written down beside the results."""
    return dict(
        command=shlex.join(sys.argv),
        config=args.config,
        checkpoint=args.checkpoint,
        seed=args.seed,
        batch_size=args.batch_size,
        torch=torch.__version__,
    )


def to_table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Returns a Markdown table whose first column holds names and the others numbers."""
    head = list(head)
    lines = [head, [':--', *['--:'] * (len(head) - 1)], *rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)
