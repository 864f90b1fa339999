"""TransMix: the attention to a mixed image decides the weights of its two labels."""

import numpy as np
from torch import Tensor

from smmix_mm import functional
from smmix_mm.functional import Box
from smmix_mm.registry import BATCH_AUGMENTS
from smmix_mm.streams import Streams
from smmix_mm.structures import Features, MixedBatch

from .base import Answers, MixingMethod
from .checks import POSITIVE, check_number
from .labels import label_by_attention


@BATCH_AUGMENTS.register_module()
class TransMix(MixingMethod):
    r"""CutMix whose labels follow the class token's attention to the mixed image.

    `TransMix: Attend to Mix for Vision Transformers <https://arxiv.org/abs/2111.09833>`_ (CVPR 2022).

    One box is drawn per batch as CutMix draws it, and pasted from image ``B - 1 - b`` into image ``b`` at the same
    place, clipped to the image. With :math:`\lambda_0` the box's part of the area and :math:`\lambda_1` the part of the
    attention that lies inside it (equation 5; last block, averaged over heads, from the class token to the image's
    tokens, without gradients), the source's share in the label of each image is :math:`(\lambda_0 + \lambda_1) / 2`.
    The attention comes from the training forward itself. A model without class token uses the image attention score
    instead.

    Args:
        alpha (float): The box's wanted part of the area comes from Beta(alpha, alpha). Defaults to 1.0.

    Raises:
        ValueError: If ``alpha`` is not positive.
    """

    reads_class_attention = True

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = check_number('TransMix', 'alpha', alpha, *POSITIVE)

    def forward(self, images: Tensor, targets: Tensor, answers: Answers, streams: Streams) -> MixedBatch:
        size = tuple(images.shape[-2:])
        box = self.draw_box(size, streams.local)
        share = functional.box_share(box, size)
        return MixedBatch(
            images=functional.paste_box_(images, box),
            targets=functional.mix_pairs(targets, share),
            share=share,
            source_box=box,
            source_targets=targets.flip(0),
            target_targets=targets,
        )

    def relabel(self, features: Features, mixed: MixedBatch) -> Tensor:
        return label_by_attention(features, mixed)

    def draw_box(self, size: tuple[int, int], stream: np.random.Generator) -> Box:
        """Draws the box of a step.

        Args:
            size (tuple[int, int]): Height and width of the images in pixels.
            stream (np.random.Generator): Stream to draw from.

        Returns:
            tuple[int, int, int, int]: Top, left, bottom, right in pixels; possibly empty or the whole image.
        """
        share = stream.beta(self.alpha, self.alpha)
        return functional.clipped_box([int(stream.integers(side)) for side in size], share, size)

    def extra_repr(self) -> str:
        return f'alpha={self.alpha}'
