"""Exact resume: train loops, sampling, SIGTERM, atomic checkpoints, one run per work directory."""

# After these imports mmengine executes nothing that is pickled in a checkpoint, and init_cfg can be strict.
import smmix_mm.checkpoint
import smmix_mm.models.pretrained  # noqa: F401

from .checkpoint_hook import CheckpointHook
from .loops import EpochBasedTrainLoop, IterBasedTrainLoop

__all__ = ['CheckpointHook', 'EpochBasedTrainLoop', 'IterBasedTrainLoop']
