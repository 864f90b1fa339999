"""The arithmetic of mixing: tensors in, tensors out.

It needs only torch and :mod:`smmix_mm.compat`, draws nothing at random and knows no model.

Vocabulary: the *source* is the image a region is cut from, the *target* the image it is pasted into; the *region* is a
size ``(rows, cols)`` in tokens; the *share* is the source's part of the area. Unless a method draws its pairs, image
``b`` of a batch of ``B`` is a target, and image ``B - 1 - b`` is its source.
"""

from .attention import activation_score, class_activation_score, class_attention, image_attention, resample_scores
from .fourier import low_frequency_field
from .labels import attended_labels, attention_share, content_map, mix_pairs, region_share
from .losses import consistency_loss, region_means
from .masks import (
    Box,
    box_mask,
    box_share,
    clipped_box,
    mix_masked,
    paste_box_,
    paste_resized_,
    pixel_mask,
    strongest_cells,
)
from .puzzle import arrange_blocks, block_colours, block_saliency, border_jumps, puzzle_energy, transport_cost
from .regions import (
    Region,
    cutmix_windows,
    max_min_corners,
    max_min_mix,
    max_windows,
    min_windows,
    paste_windows,
    window_mask,
    window_sums,
)
from .saliency import box_mask_around, gaussian_blur, peak_pixels, spectral_residual

__all__ = [
    'Box',
    'Region',
    'activation_score',
    'arrange_blocks',
    'attended_labels',
    'attention_share',
    'block_colours',
    'block_saliency',
    'border_jumps',
    'box_mask',
    'box_mask_around',
    'box_share',
    'class_activation_score',
    'class_attention',
    'clipped_box',
    'consistency_loss',
    'content_map',
    'cutmix_windows',
    'gaussian_blur',
    'image_attention',
    'low_frequency_field',
    'max_min_corners',
    'max_min_mix',
    'max_windows',
    'min_windows',
    'mix_masked',
    'mix_pairs',
    'paste_box_',
    'paste_resized_',
    'paste_windows',
    'peak_pixels',
    'pixel_mask',
    'puzzle_energy',
    'region_means',
    'region_share',
    'resample_scores',
    'spectral_residual',
    'strongest_cells',
    'transport_cost',
    'window_mask',
    'window_sums',
]
