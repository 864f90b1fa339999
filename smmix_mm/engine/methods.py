"""Mixing methods by name: the files of configs/_base_/methods, their settings, and configs that use them."""

import argparse
import copy
from collections.abc import Iterable, Mapping
from typing import Any

from mmengine.config import Config, DictAction

from smmix_mm.configs import CONFIGS
from smmix_mm.registry import BATCH_AUGMENTS, find_scope_and_name

METHODS = {path.stem: path for path in sorted((CONFIGS / '_base_/methods').glob('*.py'))}


class MethodSettings(DictAction):
    """Reads ``--set METHOD.SETTING=VALUE ...`` of the command line; an unknown method ends the program."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *args: Any) -> None:
        super().__call__(parser, namespace, *args)
        for name in getattr(namespace, self.dest):
            if name.partition('.')[0] not in METHODS or '.' not in name:
                parser.error(
                    f'--set takes METHOD.SETTING=VALUE with a method of {", ".join(METHODS)}, but got {name!r}'
                )


def add_method_settings(parser: argparse.ArgumentParser) -> None:
    """Adds the option ``--set``."""
    parser.add_argument(
        '--set',
        nargs='+',
        action=MethodSettings,
        default={},
        metavar='METHOD.SETTING=VALUE',
        help='override settings of methods: tokenmix.patch_size=4 smmix.loss.con_weight=0.5 ...',
    )


def read_method(name: str, settings: Mapping[str, Any]) -> Config:
    """Reads the config of a method, ``mixing`` and perhaps ``criterion``.

    Args:
        name (str): One of :data:`METHODS`.
        settings (Mapping[str, Any]): Settings of methods to override, ``'METHOD.SETTING'`` each; a setting of a
            setting is reached by another dot. Those of other methods are left out.
    """
    cfg = Config.fromfile(METHODS[name])
    own = {key.partition('.')[2]: value for key, value in settings.items() if key.partition('.')[0] == name}
    if own:
        # If Mixup takes the other steps, it is listed first.
        augment = Config(cfg.mixing.augments[-1].to_dict())
        augment.merge_from_dict(own)
        cfg.mixing.augments[-1] = augment.to_dict()
    return cfg


def with_method(cfg: Config, method: Config) -> Config:
    """Returns a classification config with another mixing method, for example to compare methods on one model.

    The teacher of ``cfg`` is left out. A stock ``ImageClassifier`` becomes a ``MixingClassifier``.

    Args:
        cfg (Config): Config of a classifier; not changed.
        method (Config): Holds ``mixing``, the ``train_cfg`` of the classifier, and may hold ``criterion``, settings of
            the head's loss, as the files in ``configs/_base_/methods`` do.
    """
    cfg = copy.deepcopy(cfg)
    if find_scope_and_name(cfg.model)[1] == 'ImageClassifier':
        cfg.model.type = 'smmix_mm.MixingClassifier'
    # Two copies: overriding one must not change the other.
    cfg.model.train_cfg, cfg.mixing = copy.deepcopy(method.mixing), copy.deepcopy(method.mixing)
    if 'criterion' in method:
        # Stock losses divide only by the batch size; the published loss is the mean over batch and classes.
        cfg.model.head.loss.update(method.criterion, loss_weight=1 / cfg.model.head.num_classes)
    cfg.model.pop('teacher', None)
    return cfg


def with_teacher(cfg: Config, checkpoint: str) -> Config:
    """Returns a classification config whose teacher is a model like its own.

    Args:
        cfg (Config): Config of a classifier; not changed.
        checkpoint (str): The teacher's weights, read by ``init_weights`` or ``teacher.load``.
    """
    cfg = copy.deepcopy(cfg)
    parts = {part: cfg.model[part] for part in ('backbone', 'neck', 'head') if cfg.model.get(part)}
    init_cfg = dict(type='Pretrained', checkpoint=checkpoint)
    cfg.model.teacher = dict(type='mmpretrain.ImageClassifier', **parts, init_cfg=init_cfg)
    return cfg


def needs_teacher(augments: Iterable[Mapping[str, Any]]) -> bool:
    """Whether one of the methods, built in the current scope, asks a teacher.

    Args:
        augments (Iterable[Mapping[str, Any]]): Entries of ``train_cfg.augments``.
    """
    methods = [BATCH_AUGMENTS.build(augment) for augment in augments]
    return any(question.needs_teacher for method in methods for question in getattr(method, 'questions', ()))
