"""Builds the runner of a config, or only its model, from the config or by name."""

import copy
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.registry import MODELS, RUNNERS, init_default_scope
from mmengine.runner import FlexibleRunner, Runner
from torch import nn

from smmix_mm.checkpoint import check_fit, find_weights, hand_on, load_except, read_checkpoint, read_weights
from smmix_mm.configs import get_config
from smmix_mm.datasets.own_data import complete_own_data
from smmix_mm.models.pretrained import TRAINING_ONLY

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


def get_model(name: str, checkpoint: str | None = None, **settings: Any) -> nn.Module:
    """Builds the model of a config of this package, in training mode: a classifier, a detector or a segmentor.

    Args:
        name (str): The config, as in :func:`smmix_mm.configs.find_config`.
        checkpoint (str, optional): Weights of the model, read without executing pickled code. Parts that only training
            uses, such as SMMix's region classifier, are not loaded. Defaults to None: the weights are those of the
            constructors, until ``init_weights()`` is called.
        **settings: As in :func:`build_model`.

    Raises:
        FileNotFoundError: If there is no such config or checkpoint, or the config is for own data that is not there.
        ValueError: If the checkpoint is broken or of another model.
    """
    cfg = get_config(name)
    complete_own_data(cfg)
    model = build_model(cfg, **settings)
    if checkpoint is not None:
        load_except(model, read_weights(checkpoint), checkpoint, TRAINING_ONLY)
    return model


def keep_test(cfg: Config, checkpoint: str) -> None:
    """Leaves only what the test of a checkpoint needs in a config, in place.

    Checkpoints are not sharded, so the model is tested unsharded, however it was trained.

    Args:
        cfg (Config): Config of a run.
        checkpoint (str): A checkpoint, or an address.
    """
    cfg.load_from, cfg.resume = checkpoint, False
    if cfg.get('runner_type') == 'FlexibleRunner':
        cfg.pop('runner_type')
    cfg.train_dataloader = cfg.train_cfg = cfg.optim_wrapper = cfg.param_scheduler = None
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None


def build_test_runner(cfg: Config) -> Runner:
    """Builds the runner of a test, and checks that the checkpoint fits its model.

    Args:
        cfg (Config): From :func:`keep_test`. A checkpoint is read without executing pickled code; an address is left to
            mmengine.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If it is broken or of another model. Parts that only training uses may differ.
    """
    runner = build_runner(cfg)
    if '://' not in cfg.load_from:
        content = read_checkpoint(cfg.load_from)
        check_fit(runner.model, find_weights(content, cfg.load_from), cfg.load_from, TRAINING_ONLY)
        hand_on(cfg.load_from, content)
    return runner


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
