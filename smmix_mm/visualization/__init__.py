"""Pictures of batches, of what a model looks at, and of what it predicts."""

from .mixed_batch import draw_mixed_batch
from .save_pictures import SavePictures

__all__ = ['SavePictures', 'draw_mixed_batch']
