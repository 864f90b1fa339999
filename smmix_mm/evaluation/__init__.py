"""Checks of evaluators before training, and the arithmetic of analyses of a trained model."""

from .attention_shares import HeldParts, held_by_windows, pasted_parts, token_parts
from .dry_run import try_evaluator
from .mixed_pairs import pair_hits

__all__ = ['HeldParts', 'held_by_windows', 'pair_hits', 'pasted_parts', 'token_parts', 'try_evaluator']
