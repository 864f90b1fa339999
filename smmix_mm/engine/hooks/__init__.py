"""Hooks of a run."""

from .compile_hook import CompileBackbone
from .finite_loss_hook import FiniteLossHook
from .log_history_hook import LogHistoryHook
from .readable_images_hook import ReadableImagesHook
from .recompute_hook import RecomputeActivations

__all__ = [
    'CompileBackbone',
    'FiniteLossHook',
    'LogHistoryHook',
    'ReadableImagesHook',
    'RecomputeActivations',
]
