"""Pictures of mixed batches, attention, predictions and statistics."""

from .class_activation import map_class_activation
from .mixed_batch import Mixture, draw_mixed_batch, draw_mixtures, name_method, trace_mixing
from .panels import (
    Panel,
    check_normalisation,
    describe_shares,
    draw_panels,
    overlay,
    save_figure,
    shorten_name,
    to_array,
    to_pictures,
)
from .save_pictures import SavePictures
from .share_histograms import draw_share_histograms

__all__ = [
    'Mixture',
    'Panel',
    'SavePictures',
    'check_normalisation',
    'describe_shares',
    'draw_mixed_batch',
    'draw_mixtures',
    'draw_panels',
    'draw_share_histograms',
    'map_class_activation',
    'name_method',
    'overlay',
    'save_figure',
    'shorten_name',
    'to_array',
    'to_pictures',
    'trace_mixing',
]
