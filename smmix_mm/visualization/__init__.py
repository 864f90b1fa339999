"""Pictures of mixed batches, attention and predictions."""

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

__all__ = [
    'Mixture',
    'Panel',
    'SavePictures',
    'check_normalisation',
    'describe_shares',
    'draw_mixed_batch',
    'draw_mixtures',
    'draw_panels',
    'map_class_activation',
    'name_method',
    'overlay',
    'save_figure',
    'shorten_name',
    'to_array',
    'to_pictures',
    'trace_mixing',
]
