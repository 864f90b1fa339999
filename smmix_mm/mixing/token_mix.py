"""TokenMix: mixes by a mask of scattered tokens, with labels by a teacher's class maps."""

import math

import numpy as np
from torch import Tensor

from smmix_mm import functional
from smmix_mm.registry import BATCH_AUGMENTS
from smmix_mm.streams import Streams, to_device
from smmix_mm.structures import MixedBatch, Question

from .base import Answers, MixingMethod, TrainedModel
from .checks import check_choice, check_grid, check_number, check_whole_number
from .labels import label_by_content

# Number of tries to place one block before the mask is final.
TRIES = 10


@BATCH_AUGMENTS.register_module()
class TokenMix(MixingMethod):
    r"""Mixes at random tokens, and labels by the content that a frozen teacher sees there.

    `TokenMix: Rethinking Image Mixing for Data Augmentation in Vision Transformers
    <https://arxiv.org/abs/2207.08409>`_ (ECCV 2022).

    One mask is drawn per batch, on a grid of its own: image side over ``patch_size``, whatever the model's grid. Where
    it is True, image ``b`` gets the pixels of image ``B - 1 - b``. The teacher gives each unmixed image a map of its
    own class; that map, normalised, gives the part of the image's content that the mask keeps:
    :math:`s_A = \sum_j m_j a_j` for the source, :math:`s_B = \sum_j (1 - m_j) b_j` for the target. The two shares need
    not sum to one.

    **Labels and criterion.** With smoothing :math:`\epsilon` over :math:`C` classes the authors train binary
    cross-entropy on :math:`s - \epsilon / 2 + \epsilon / 2C` at each of the two labels and :math:`\epsilon / 2C` per
    image elsewhere. The labels here are :math:`(s - \epsilon / 2) / (1 - \epsilon)`, with the criterion's own
    :math:`\epsilon`, so that the criterion's smoothing yields exactly the authors' labels. The published criterion, a
    mean over batch **and** classes, is
    ``LabelSmoothLoss(0.1, mode='original', use_sigmoid=True, num_classes=C, loss_weight=1 / C)``. Softmax cross-entropy
    takes such labels too, but weighs images by the sum of their shares.

    **The teacher.** The authors read their maps from files computed on the whole images, and swap rows and columns in
    the boxes of the crops. Here the teacher sees the same crop as the model.

    Args:
        mask (str): ``'block'``, a union of random rectangles (the published form), possibly a few tokens too small;
            ``'random'``, tokens drawn one by one. Defaults to ``'block'``.
        patch_size (int): Side in pixels of a token of the mask. Defaults to 16.
        share (float): The source's part of the tokens, in [0, 1), before ``extra_tokens``. Defaults to 0.5.
        extra_tokens (int): The mask grows towards ``floor(share * N) + extra_tokens`` of its ``N`` tokens. Defaults to
            14, the authors' for 14 x 14 tokens.
        min_aspect (float): Rows over columns of a block are log-uniform in ``[min_aspect, 1 / min_aspect]``; in (0, 1].
            Defaults to 0.3.

    Raises:
        ValueError: If a setting is outside its range, or the head's loss smooths labels in another way than
            ``mode='original'``.
    """

    questions = (Question(class_map=True, by='teacher', own_grid=True),)

    def __init__(
        self,
        mask: str = 'block',
        patch_size: int = 16,
        share: float = 0.5,
        extra_tokens: int = 14,
        min_aspect: float = 0.3,
    ) -> None:
        super().__init__()
        self.mask = check_choice('TokenMix', 'mask', mask, ('block', 'random'))
        self.patch_size = check_whole_number('TokenMix', 'patch_size', patch_size, least=1)
        self.share = check_number('TokenMix', 'share', share, 'a number in [0, 1)', lambda part: 0 <= part < 1)
        self.extra_tokens = check_whole_number('TokenMix', 'extra_tokens', extra_tokens, least=0)
        self.min_aspect = check_number(
            'TokenMix', 'min_aspect', min_aspect, 'a number in (0, 1]', lambda aspect: 0 < aspect <= 1
        )
        self.smoothing = 0.0

    def prepare(self, model: TrainedModel) -> None:
        loss = model.head.loss_module
        self.smoothing = float(getattr(loss, 'label_smooth_val', 0.0))
        mode = getattr(loss, 'mode', 'original')
        if self.smoothing and mode != 'original':
            raise ValueError(
                f"mode of {type(loss).__name__} has to be 'original' for the labels of TokenMix, but got {mode!r}"
            )

    def forward(self, images: Tensor, targets: Tensor, answers: Answers, streams: Streams) -> MixedBatch:
        grid = self.grid((images.shape[-2], images.shape[-1]))
        mask = self.draw_mask(grid, streams.local)
        share = float(mask.mean())
        mask = to_device(mask, images.device)
        (answer,) = answers
        return MixedBatch(
            images=functional.mix_masked(images, images.flip(0), mask),
            targets=label_by_content(targets, answer.class_map, mask, mask, self.smoothing),
            share=share,
            source_mask=mask,
        )

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of the mask for images of ``(height, width)`` pixels.

        Raises:
            ValueError: If ``patch_size`` does not divide both, or no mask of that size leaves both images a token.
        """
        grid = check_grid('TokenMix', 'patch_size', self.patch_size, size)
        if not 1 <= self.count(grid) < grid[0] * grid[1]:
            raise ValueError(
                f'share={self.share} and extra_tokens={self.extra_tokens} of TokenMix have to leave each image at '
                f'least one token, but ask for {self.count(grid)} of {grid[0] * grid[1]} tokens, for images of '
                f'{size[0]} x {size[1]} pixels at patch_size={self.patch_size}'
            )
        if self.mask == 'block' and min(grid) < 2:
            raise ValueError(
                f"mask='block' of TokenMix needs at least 2 tokens on both sides, but images of {size[0]} x {size[1]} "
                f'pixels have {grid[0]} x {grid[1]} at patch_size={self.patch_size}'
            )
        return grid

    def count(self, grid: tuple[int, int]) -> int:
        """Number of tokens that a mask grows towards on its grid."""
        return math.floor(self.share * grid[0] * grid[1]) + self.extra_tokens

    def draw_mask(self, grid: tuple[int, int], stream: np.random.Generator) -> np.ndarray:
        """Draws the mask of a step.

        Args:
            grid (tuple[int, int]): Rows and columns of the mask.
            stream (np.random.Generator): Stream to draw from.

        Returns:
            np.ndarray: Bool, True where the source is pasted; at most :meth:`count` tokens, exactly as many if random.
        """
        mask = np.zeros(grid, dtype=bool)
        left = self.count(grid)
        if self.mask == 'random':
            mask.flat[stream.choice(mask.size, left, replace=False)] = True
            return mask
        while left and (added := self._add_block(mask, left, stream)):
            left -= added
        return mask

    def _add_block(self, mask: np.ndarray, left: int, stream: np.random.Generator) -> int:
        """Adds a block of at most ``left`` new tokens and returns their number; 0 if ten tries find no such block."""
        for _ in range(TRIES):
            area = stream.uniform(1, left)
            aspect = math.exp(stream.uniform(math.log(self.min_aspect), -math.log(self.min_aspect)))
            rows, cols = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if rows >= mask.shape[0] or cols >= mask.shape[1]:
                continue
            top, start = stream.integers(mask.shape[0] - rows + 1), stream.integers(mask.shape[1] - cols + 1)
            block = mask[top : top + rows, start : start + cols]
            added = block.size - int(block.sum())
            if 1 <= added <= left:
                block[:] = True
                return added
        return 0

    def extra_repr(self) -> str:
        return (
            f'mask={self.mask!r}, patch_size={self.patch_size}, share={self.share}, extra_tokens={self.extra_tokens}, '
            f'min_aspect={self.min_aspect}'
        )
