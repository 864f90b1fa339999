"""Reports and counts replaced unreadable images, and stops the run if there are too many."""

import itertools
from collections.abc import Mapping
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from smmix_mm.registry import HOOKS

from .reports import name_step, warn

# Number of images named in the error.
EXAMPLES = 5


@HOOKS.register_module()
class ReadableImagesHook(Hook):
    """Reports unreadable images that were replaced, and stops the run if there are too many.

    The train loops of this package replace such images. Each message is logged once, by the rank that met it; the
    number of images replaced so far is logged as ``replaced_images``. Counts are kept per rank and survive a resume
    (all ranks then start from the first one's).

    Args:
        max_share (float): The largest share of the images seen that may have been replaced, from 0 to 1.
            Defaults to 0.01.
        min_images (int): The share is computed over at least this number of images, so that a single file in the first
            batch does not stop a run, but a missing folder does. Defaults to 1000.

    Raises:
        ValueError: If a setting is out of range.
        RuntimeError: While training, if the limit is exceeded. It names share, limit, count and some of the images.
    """

    def __init__(self, max_share: float = 0.01, min_images: int = 1000) -> None:
        if not 0 <= max_share <= 1:
            raise ValueError(f'max_share has to be between 0 and 1, but got {max_share}')
        if min_images < 1:
            raise ValueError(f'min_images has to be at least 1, but got {min_images}')
        self.max_share = max_share
        self.min_images = min_images
        # In order of occurrence.
        self._messages: dict[str, None] = {}

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        samples = _samples(data_batch)
        messages = [sample.get('replaced') for sample in samples if 'replaced' in sample]
        hub = runner.message_hub
        seen = hub.get_info('seen_images', 0) + len(samples)
        replaced = hub.get_info('replaced_images', 0) + len(messages)
        hub.update_info('seen_images', seen)
        hub.update_info('replaced_images', replaced)
        if messages:
            # Not in each step: mmengine would show it in every line, and copies the whole history to add a value.
            hub.update_scalar('train/replaced_images', replaced)
        for message in itertools.chain(*messages):
            if message not in self._messages:
                self._messages[message] = None
                warn(runner, f'replaced by another image: {message}')
        if replaced > self.max_share * max(seen, self.min_images):
            self._stop(runner, seen, replaced)

    def _stop(self, runner: Runner, seen: int, replaced: int) -> None:
        examples = list(self._messages)[-EXAMPLES:]
        raise RuntimeError(
            f'{replaced} of the {seen} images seen until {name_step(runner)} could not be read and were replaced '
            f'({replaced / max(seen, 1):.2%}), but ReadableImagesHook allows max_share={self.max_share} of '
            f'{max(seen, self.min_images)} images. The latest: {"; ".join(examples)}'
        )


def _samples(data_batch: Any) -> list[BaseDataElement]:
    """Returns the data samples of a batch; other kinds of samples cannot be marked as replaced."""
    samples = data_batch.get('data_samples') if isinstance(data_batch, Mapping) else None
    return [sample for sample in samples or () if isinstance(sample, BaseDataElement)]
