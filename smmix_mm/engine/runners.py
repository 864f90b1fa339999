"""The runner that a config names."""

from collections.abc import Mapping

from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.registry import MODELS, RUNNERS
from mmengine.runner import FlexibleRunner, Runner

from .strategies import MMEngineFSDPStrategy


def build_runner(cfg: Config) -> Runner | FlexibleRunner:
    """Builds the runner of ``runner_type``, by default mmengine's ``Runner``, and its model.

    Args:
        cfg (Config): Of a run.

    Raises:
        ValueError: If the model is to be averaged by ``EMAHook``, but cut into shards.
    """
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    # FlexibleRunner would build it in the first step, after checkpoints should have been compared with it.
    if isinstance(runner.model, Mapping):
        runner.model = MODELS.build(runner.model)
    sharded = isinstance(getattr(runner, 'strategy', None), MMEngineFSDPStrategy)
    if sharded and any(isinstance(hook, EMAHook) for hook in runner.hooks):
        raise ValueError('EMAHook copies the model, which FSDP has cut into shards by then: leave out one of them')
    return runner
