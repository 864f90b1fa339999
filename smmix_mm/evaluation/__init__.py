"""Metrics, checks of evaluators before training, and the arithmetic of analyses of a trained model."""

from .attention_shares import HeldParts, held_by_windows, pasted_parts, token_parts
from .dry_run import try_evaluator
from .imagenet_c import ALEXNET_ERRORS, SEVERITIES, mean_corruption_error
from .mixed_pairs import pair_hits
from .subset_accuracy import SubsetAccuracy

__all__ = [
    'ALEXNET_ERRORS',
    'SEVERITIES',
    'HeldParts',
    'SubsetAccuracy',
    'held_by_windows',
    'mean_corruption_error',
    'pair_hits',
    'pasted_parts',
    'token_parts',
    'try_evaluator',
]
