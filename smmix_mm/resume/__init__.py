"""Exact resume: train loops, sampling, SIGTERM, atomic checkpoints, one run per work directory."""

# After this import mmengine executes nothing that is pickled in a checkpoint.
import smmix_mm.checkpoint  # noqa: F401

from .checkpoint_hook import CheckpointHook
from .loops import EpochBasedTrainLoop, IterBasedTrainLoop

__all__ = ['CheckpointHook', 'EpochBasedTrainLoop', 'IterBasedTrainLoop']
