"""ResizeMix: pastes the whole source, resized, at a random place."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from smmix_mm import functional
from smmix_mm.functional import Box
from smmix_mm.registry import BATCH_AUGMENTS
from smmix_mm.streams import Streams, random_pairs
from smmix_mm.structures import MixedBatch

from .base import Answers, MixingMethod
from .checks import check_choice, check_range


@BATCH_AUGMENTS.register_module()
class ResizeMix(MixingMethod):
    r"""Pastes the whole source, resized, so that the pasted part always contains its object.

    `ResizeMix: Mixing Data with Preserved Object Information and True Labels <https://arxiv.org/abs/2012.11101>`_.

    Pairs are a random permutation of the batch. One box is drawn per batch: its sides are :math:`\tau` times those of
    the images, :math:`\tau` uniform in ``side_ratio``, around a random pixel. The box is clipped to the image, and the
    whole source is resized to the clipped box. The source's share in the labels is that box's part of the area.

    ``mmpretrain.ResizeMix`` is another method under the same name: it draws :math:`\lambda` from that range instead of
    the side, and pastes a box of :math:`1 - \lambda` of the area, on average about twice as large (0.35 of the
    image against 0.17). Write the prefix; without one, mmengine's default scope decides which of the two is used.

    Args:
        side_ratio (float | tuple[float, float]): The box's sides over the images' in (0, 1], or the range to draw that
            from. Defaults to ``(0.1, 0.8)``.
        interpolation (str): ``'nearest'``, as in OpenMixup's runs on ImageNet, or ``'bilinear'``. Defaults to
            ``'nearest'``.

    Raises:
        ValueError: If a setting is outside its range.
    """

    def __init__(self, side_ratio: float | Sequence[float] = (0.1, 0.8), interpolation: str = 'nearest') -> None:
        super().__init__()
        needed = 'a number in (0, 1] or a pair 0 < low <= high <= 1'
        self.side_ratio = check_range(
            'ResizeMix', 'side_ratio', side_ratio, needed, lambda low, high: low > 0 and high <= 1
        )
        self.interpolation = check_choice('ResizeMix', 'interpolation', interpolation, ('nearest', 'bilinear'))

    def forward(self, images: Tensor, targets: Tensor, answers: Answers, streams: Streams) -> MixedBatch:
        size = tuple(images.shape[-2:])
        pairs = random_pairs(streams.local, len(images), images.device)
        box = self.draw_box(size, streams.local)
        share = functional.box_share(box, size)
        return MixedBatch(
            images=functional.paste_resized_(images, box, pairs, self.interpolation),
            targets=functional.mix_pairs(targets, share, pairs),
            share=share,
            source_box=box,
        )

    def draw_box(self, size: tuple[int, int], stream: np.random.Generator) -> Box:
        """Draws the box of a step.

        Args:
            size (tuple[int, int]): Height and width of the images in pixels.
            stream (np.random.Generator): Stream to draw from.

        Returns:
            tuple[int, int, int, int]: Top, left, bottom, right in pixels; empty if the images are too small for the
            ratio.
        """
        ratio = stream.uniform(*self.side_ratio)
        return functional.clipped_box([int(stream.integers(side)) for side in size], ratio**2, size)

    def extra_repr(self) -> str:
        return f'side_ratio={self.side_ratio}, interpolation={self.interpolation!r}'
