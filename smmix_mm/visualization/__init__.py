"""Pictures of mixed batches, attention, predictions and statistics."""

from .mixed_batch import draw_mixed_batch
from .save_pictures import SavePictures
from .share_histograms import draw_share_histograms

__all__ = ['SavePictures', 'draw_mixed_batch', 'draw_share_histograms']
