"""What a run needs around the training step."""

from .amp import AmpOptimWrapper
from .checkpoint import check_fit, read_checkpoint, read_weights, write_weights
from .dataloaders import complete_dataloaders
from .distributed import distributed_run
from .hooks import (
    CheckpointHook,
    CompileBackbone,
    FiniteLossHook,
    LogHistoryHook,
    ReadableImagesHook,
    RecomputeActivations,
    SavePictures,
)
from .loops import EpochBasedTrainLoop, IterBasedTrainLoop
from .pretrained import load_backbone, load_classifier
from .runners import build_model, build_runner
from .schedulers import GroupedCosineAnnealingLR
from .strategies import FSDPStrategy

__all__ = [
    'AmpOptimWrapper',
    'CheckpointHook',
    'CompileBackbone',
    'EpochBasedTrainLoop',
    'FSDPStrategy',
    'FiniteLossHook',
    'GroupedCosineAnnealingLR',
    'IterBasedTrainLoop',
    'LogHistoryHook',
    'ReadableImagesHook',
    'RecomputeActivations',
    'SavePictures',
    'build_model',
    'build_runner',
    'check_fit',
    'complete_dataloaders',
    'distributed_run',
    'load_backbone',
    'load_classifier',
    'read_checkpoint',
    'read_weights',
    'write_weights',
]
