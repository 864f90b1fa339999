"""Pictures of mixed batches, attention and predictions."""

from .mixed_batch import draw_mixed_batch
from .save_pictures import SavePictures

__all__ = ['SavePictures', 'draw_mixed_batch']
