"""Hooks of a run."""

from .compile_hook import CompileBackbone
from .early_stopping_hook import EarlyStoppingHook
from .finite_loss_hook import FiniteLossHook
from .keep_memory_hook import KeepMemory
from .log_history_hook import LogHistoryHook
from .mixed_batch_hook import MixedBatchHook
from .one_dnn_linear_hook import OneDNNLinear
from .readable_images_hook import ReadableImagesHook
from .recompute_hook import RecomputeActivations

__all__ = [
    'CompileBackbone',
    'EarlyStoppingHook',
    'FiniteLossHook',
    'KeepMemory',
    'LogHistoryHook',
    'MixedBatchHook',
    'OneDNNLinear',
    'ReadableImagesHook',
    'RecomputeActivations',
]
