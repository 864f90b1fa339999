"""Evaluators, tried before a run trains."""

from .dry_run import try_evaluator

__all__ = ['try_evaluator']
