"""Pictures of batches and of what a model looks at."""

from .mixed_batch import draw_mixed_batch

__all__ = ['draw_mixed_batch']
