"""AttentiveMix: pastes the cells that a pretrained model scores highest, at the same place."""

import numpy as np
from torch import Tensor

from smmix_mm import functional
from smmix_mm.registry import BATCH_AUGMENTS
from smmix_mm.streams import Streams, random_pairs
from smmix_mm.structures import MixedBatch, Question

from .base import Answers, MixingMethod
from .checks import POSITIVE, check_choice, check_grid, check_number, check_whole_number


@BATCH_AUGMENTS.register_module()
class AttentiveMix(MixingMethod):
    r"""Pastes the cells of each source that a frozen teacher scores highest.

    `Attentive CutMix: An Enhanced Data Augmentation Approach for Deep Learning Based Image Classification
    <https://arxiv.org/abs/2003.13048>`_.

    Pairs are a random permutation of the batch. The images are cut into cells, and the teacher's scores of each source
    are resampled from its own grid to that of the cells. The ``k`` cells with the highest scores overwrite the same
    cells of the target. The source's share :math:`\lambda` in the label :math:`\lambda y_A + (1 - \lambda) y_B` is
    ``k`` over the number of cells.

    The authors' released code scores a cell by the last channel of the feature map alone. The mean over channels, and
    the draw of ``k``, are OpenMixup's.

    Args:
        cells (int, optional): ``k``, from 1 to all cells of the images but one; the paper has 6. Defaults to None: a
            share is drawn from Beta(alpha, alpha) per batch, multiplied by the number of cells, rounded down and
            clamped to the same bounds, so that neither image fills the mixed one.
        alpha (float): See ``cells``. Defaults to 2.0.
        cell_size (int): Side of a cell in pixels, which has to divide the sides of the images. Defaults to 32: the
            published 7 x 7 cells at 224 x 224 pixels.
        by (str): The score of a cell: ``'attention'``, the teacher's image attention score; ``'activation'``, the
            mean over channels of its last feature map, as published with a ResNet-50. Defaults to ``'attention'``:
            after the last layer norm of a transformer the mean over channels hardly differs between tokens.

    Raises:
        ValueError: If a setting is outside its range.
    """

    def __init__(
        self,
        cells: int | None = None,
        alpha: float = 2.0,
        cell_size: int = 32,
        by: str = 'attention',
    ) -> None:
        super().__init__()
        self.cells = None if cells is None else check_whole_number('AttentiveMix', 'cells', cells, least=1)
        self.alpha = check_number('AttentiveMix', 'alpha', alpha, *POSITIVE)
        self.cell_size = check_whole_number('AttentiveMix', 'cell_size', cell_size, least=1)
        self.by = check_choice('AttentiveMix', 'by', by, ('attention', 'activation'))
        self.questions = (Question(**{self.by: True}, by='teacher', own_grid=True),)

    def forward(self, images: Tensor, targets: Tensor, answers: Answers, streams: Streams) -> MixedBatch:
        grid = self.grid((images.shape[-2], images.shape[-1]))
        count = self.draw_count(grid, streams.local)
        pairs = random_pairs(streams.local, len(images), images.device)
        (answer,) = answers
        scores = functional.resample_scores(getattr(answer, self.by), grid)
        pasted = functional.strongest_cells(scores, count)[pairs]
        share = count / (grid[0] * grid[1])
        return MixedBatch(
            images=functional.mix_masked(images, images[pairs], pasted),
            targets=functional.mix_pairs(targets, share, pairs),
            share=share,
            source_mask=pasted,
        )

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of cells of images of ``(height, width)`` pixels.

        Raises:
            ValueError: If ``cell_size`` does not divide both, or there are not enough cells to leave both images one.
        """
        grid = check_grid('AttentiveMix', 'cell_size', self.cell_size, size)
        total, least = grid[0] * grid[1], self.cells or 1
        if least >= total:
            raise ValueError(
                f'cells={self.cells} of AttentiveMix needs more than {least} cells in an image, but images of '
                f'{size[0]} x {size[1]} pixels have {total} at cell_size={self.cell_size}'
            )
        return grid

    def draw_count(self, grid: tuple[int, int], stream: np.random.Generator) -> int:
        """Draws how many cells are pasted in a step: from 1 to all cells but one.

        Args:
            grid (tuple[int, int]): Rows and columns of cells.
            stream (np.random.Generator): Stream to draw from; not used if ``cells`` is a number.
        """
        if self.cells is not None:
            return self.cells
        total = grid[0] * grid[1]
        return min(max(int(stream.beta(self.alpha, self.alpha) * total), 1), total - 1)

    def extra_repr(self) -> str:
        return f'cells={self.cells}, alpha={self.alpha}, cell_size={self.cell_size}, by={self.by!r}'
