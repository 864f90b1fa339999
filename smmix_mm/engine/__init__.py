"""What a run needs around the training step."""

from .checkpoint import check_fit, read_checkpoint, read_weights, write_weights
from .dataloaders import complete_dataloaders

__all__ = ['check_fit', 'complete_dataloaders', 'read_checkpoint', 'read_weights', 'write_weights']
