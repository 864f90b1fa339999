"""Replaces unreadable samples by readable ones."""

from typing import Any

import numpy as np
from mmengine.structures import BaseDataElement
from torch.utils.data import Dataset

from .load_image import UnreadableImageError

# More unreadable files in a row mean that the dataset is at fault, not single files.
MAX_REPLACEMENTS = 10


def read_or_replace(dataset: Dataset, index: int, stream: np.random.Generator) -> Any:
    """Reads a sample, or a randomly drawn one if its image is unreadable.

    The data sample of a replacement gets the metainfo ``replaced``, the messages of the errors.

    Args:
        dataset (Dataset): The dataset, read by index.
        index (int): Index of the sample.
        stream (np.random.Generator): Indices of replacements are drawn from it.

    Raises:
        UnreadableImageError: If more than :data:`MAX_REPLACEMENTS` in a row are unreadable, or the replacement has no
            data sample to hold ``replaced``.
    """
    messages = []
    while True:
        try:
            sample = dataset[index]
            break
        except UnreadableImageError as error:
            messages.append(str(error))
            last = error
        if len(messages) > MAX_REPLACEMENTS:
            raise last
        index = int(stream.integers(len(dataset)))
    if messages:
        data_sample = sample.get('data_samples') if isinstance(sample, dict) else None
        if not isinstance(data_sample, BaseDataElement):
            raise last
        data_sample.set_metainfo(dict(replaced=messages))
    return sample
