"""Builds the runner of a config, or only its model."""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.registry import MODELS, RUNNERS, init_default_scope
from mmengine.runner import FlexibleRunner, Runner
from torch import nn

from smmix_mm.registry import BATCH_AUGMENTS

from .strategies import MMEngineFSDPStrategy


def build_model(cfg: Config, **settings: Any) -> nn.Module:
    """Builds the model of a config without a runner, including the config's ``data_preprocessor``.

    ``MODELS.build(cfg.model)`` would leave out the preprocessor without an error: the model would get pixels from 0 to
    255, with channels in the order of the files.

    Args:
        cfg (Config): Config of a run; not changed. Its ``default_scope`` becomes the current one.
        **settings: Settings of the model that extend or override the config's, such as modules, which a config cannot
            hold.
    """
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    model = copy.deepcopy(dict(cfg.model))
    if cfg.get('data_preprocessor') is not None:
        model.setdefault('data_preprocessor', copy.deepcopy(dict(cfg.data_preprocessor)))
    return MODELS.build(model | settings)


def with_method(cfg: Config, method: Config) -> Config:
    """Returns a classification config with another mixing method, for example to compare methods on one model.

    The teacher of ``cfg`` is left out.

    Args:
        cfg (Config): Config of a classifier; not changed.
        method (Config): Holds ``mixing``, the ``train_cfg`` of the classifier, and may hold ``criterion``, settings of
            the head's loss, as the files in ``configs/_base_/methods`` do.
    """
    cfg = copy.deepcopy(cfg)
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


def build_runner(cfg: Config) -> Runner | FlexibleRunner:
    """Builds the runner of ``runner_type``, by default mmengine's ``Runner``, and its model.

    Args:
        cfg (Config): Config of a run.

    Raises:
        ValueError: If the config combines ``EMAHook`` with a model sharded by FSDP.
    """
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    # FlexibleRunner would build the model in the first step, too late to check checkpoints against it.
    if isinstance(runner.model, Mapping):
        runner.model = MODELS.build(runner.model)
    sharded = isinstance(getattr(runner, 'strategy', None), MMEngineFSDPStrategy)
    if sharded and any(isinstance(hook, EMAHook) for hook in runner.hooks):
        raise ValueError('EMAHook copies the model, but FSDP has already sharded it: use only one of the two')
    return runner
