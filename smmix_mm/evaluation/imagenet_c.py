"""The mean corruption error of ImageNet-C (arXiv 1903.12261)."""

import statistics
from collections.abc import Mapping, Sequence

SEVERITIES = (1, 2, 3, 4, 5)

# The corruptions, and the mean error of AlexNet over the severities of each, in per cent, as the authors' repository
# gives it (hendrycks/robustness; its fractions have six digits).
ALEXNET_ERRORS = {
    'gaussian_noise': 88.6428,
    'shot_noise': 89.4468,
    'impulse_noise': 92.2640,
    'defocus_blur': 81.9880,
    'glass_blur': 82.6268,
    'motion_blur': 78.5948,
    'zoom_blur': 79.8360,
    'snow': 86.6816,
    'frost': 82.6572,
    'fog': 81.9324,
    'brightness': 56.4592,
    'contrast': 85.3204,
    'elastic_transform': 64.6056,
    'pixelate': 71.7840,
    'jpeg_compression': 60.6500,
}


def mean_corruption_error(accuracies: Mapping[str, Sequence[float]]) -> float:
    r"""The mCE: :math:`\frac{100}{15} \sum_c \sum_s E_{c,s} / \sum_s E^{\text{AlexNet}}_{c,s}`.

    Args:
        accuracies (Mapping[str, Sequence[float]]): Top-1 in per cent, at the five severities of each of the 15
            corruptions.

    Returns:
        float: In per cent; AlexNet has 100.

    Raises:
        ValueError: If corruptions or severities are missing, or others are given.
    """
    wrong = [name for name in {**ALEXNET_ERRORS, **accuracies} if len(accuracies.get(name, ())) != len(SEVERITIES)]
    wrong += accuracies.keys() - ALEXNET_ERRORS.keys()
    if wrong:
        raise ValueError(
            f'the mean corruption error needs {len(SEVERITIES)} severities of each of {", ".join(ALEXNET_ERRORS)}, but '
            f'these differ: {", ".join(sorted(set(wrong)))}'
        )
    return 100 * statistics.fmean(
        (100 - statistics.fmean(accuracies[name])) / error for name, error in ALEXNET_ERRORS.items()
    )
