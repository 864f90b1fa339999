"""What a run needs around the training step."""

from .checkpoint import check_fit, read_checkpoint, read_weights, write_weights
from .dataloaders import complete_dataloaders
from .hooks import SavePictures
from .pretrained import load_backbone, load_classifier

__all__ = [
    'SavePictures',
    'check_fit',
    'complete_dataloaders',
    'load_backbone',
    'load_classifier',
    'read_checkpoint',
    'read_weights',
    'write_weights',
]
