"""The parts of a run around the training step: AMP, strategies, processes, schedules, runners and hooks."""

from .amp import AmpOptimWrapper
from .dataloaders import complete_dataloaders
from .distributed import distributed_run
from .hooks import (
    CompileBackbone,
    EarlyStoppingHook,
    FiniteLossHook,
    KeepMemory,
    LogHistoryHook,
    MixedBatchHook,
    OneDNNLinear,
    ReadableImagesHook,
    RecomputeActivations,
)
from .methods import METHODS, add_method_settings, needs_teacher, read_method, with_method, with_teacher
from .multi_test_loop import MultiTestLoop
from .runners import build_model, build_runner, build_test_runner, get_model, keep_test
from .schedulers import GroupedCosineAnnealingLR
from .strategies import FSDPStrategy

__all__ = [
    'METHODS',
    'AmpOptimWrapper',
    'CompileBackbone',
    'EarlyStoppingHook',
    'FSDPStrategy',
    'FiniteLossHook',
    'GroupedCosineAnnealingLR',
    'KeepMemory',
    'LogHistoryHook',
    'MixedBatchHook',
    'MultiTestLoop',
    'OneDNNLinear',
    'ReadableImagesHook',
    'RecomputeActivations',
    'add_method_settings',
    'build_model',
    'build_runner',
    'build_test_runner',
    'complete_dataloaders',
    'distributed_run',
    'get_model',
    'keep_test',
    'needs_teacher',
    'read_method',
    'with_method',
    'with_teacher',
]
