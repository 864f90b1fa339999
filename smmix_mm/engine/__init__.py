"""What a run needs around the training step."""

from .checkpoint import check_fit, read_checkpoint, read_weights, write_weights

__all__ = ['check_fit', 'read_checkpoint', 'read_weights', 'write_weights']
