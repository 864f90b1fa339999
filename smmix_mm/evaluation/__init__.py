"""Checks of evaluators before training."""

from .dry_run import try_evaluator

__all__ = ['try_evaluator']
