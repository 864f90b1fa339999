"""AttentiveMix: the cells that a pretrained model finds strongest are pasted at their own place."""

from collections.abc import Sequence
from numbers import Integral, Real

import numpy as np
from torch import Tensor

from smmix_mm import functional
from smmix_mm.registry import BATCH_AUGMENTS
from smmix_mm.structures import MixedBatch

from .base import MixingMethod, Motivate
from .streams import Streams, random_pairs


@BATCH_AUGMENTS.register_module()
class AttentiveMix(MixingMethod):
    r"""Pastes the cells of each source that a frozen teacher finds strongest.

    `Attentive CutMix: An Enhanced Data Augmentation Approach for Deep Learning Based Image Classification
    <https://arxiv.org/abs/2003.13048>`_.

    Pairs are a random permutation of the batch. The teacher scores the cells of a grid over each source; the ``k``
    strongest overwrite the same cells of the target, and ``k`` over all cells is the source's share :math:`\lambda` in
    the label :math:`\lambda y_A + (1 - \lambda) y_B`.

    Args:
        cells (int, optional): ``k``, from 1 to all cells but one; the paper has 6. Defaults to None: one draw of the
            share from Beta(alpha, alpha) per batch, times the number of cells, rounded, and kept within the same
            bounds, so that neither image is ever all there is.
        alpha (float): See ``cells``. Defaults to 2.0.
        grid_size (int | tuple[int, int]): Cells of the grid, a side or rows and columns; they must divide the sides of
            the images. Defaults to 7.
        by (str): What a cell's score is: ``'attention'``, the teacher's image attention score; ``'activation'``, the
            mean over channels of its last feature map, as published with a ResNet-50. Defaults to ``'attention'``:
            the last layer norm of a transformer leaves the mean over channels next to nothing to tell tokens apart by.

    Raises:
        ValueError: If a setting is outside its range.
    """

    needs_teacher = True

    def __init__(
        self,
        cells: int | None = None,
        alpha: float = 2.0,
        grid_size: int | Sequence[int] = 7,
        by: str = 'attention',
    ) -> None:
        super().__init__()
        self.grid = _check_grid_size(grid_size)
        most = self.grid[0] * self.grid[1] - 1
        if cells is not None and not (isinstance(cells, Integral) and 1 <= cells <= most):
            raise ValueError(
                f'cells of AttentiveMix has to be None or a whole number from 1 to {most}, all cells of the grid but '
                f'one, but got {cells!r}'
            )
        if not (isinstance(alpha, Real) and 0 < alpha < float('inf')):
            raise ValueError(f'alpha of AttentiveMix has to be a positive number, but got {alpha!r}')
        if by not in ('attention', 'activation'):
            raise ValueError(f"by of AttentiveMix has to be one of ('attention', 'activation'), but got {by!r}")
        self.cells = cells
        self.alpha = float(alpha)
        self.by = by
        self.asks_teacher = (by,)

    def forward(self, images: Tensor, targets: Tensor, motivate: Motivate, streams: Streams) -> MixedBatch:
        self._check_size(images.shape[-2], images.shape[-1])
        count = self.draw_count(streams.local)
        pairs = random_pairs(streams.local, len(images), images.device)
        strongest = functional.strongest_cells(self._scores(images, motivate), count)
        share = count / (self.grid[0] * self.grid[1])
        return MixedBatch(
            images=functional.mix_masked(images, images[pairs], strongest[pairs]),
            targets=functional.mix_pairs(targets, share, pairs),
        )

    def draw_count(self, stream: np.random.Generator) -> int:
        """Draws how many cells are pasted in a step: from 1 to all cells but one.

        Args:
            stream (np.random.Generator): Where the draw comes from; left alone if ``cells`` is a number.
        """
        if self.cells is not None:
            return self.cells
        total = self.grid[0] * self.grid[1]
        return min(max(round(stream.beta(self.alpha, self.alpha) * total), 1), total - 1)

    def _scores(self, images: Tensor, motivate: Motivate) -> Tensor:
        by_attention = self.by == 'attention'
        told = motivate(images, attention=by_attention, logits=False, activation=not by_attention, by='teacher')
        return functional.resample_scores(told.attention if by_attention else told.activation, self.grid)

    def _check_size(self, height: int, width: int) -> None:
        if height % self.grid[0] or width % self.grid[1]:
            raise ValueError(
                f'grid_size of AttentiveMix has to divide the sides of the images, but got {self.grid[0]} x '
                f'{self.grid[1]} cells for images of {height} x {width} pixels'
            )

    def extra_repr(self) -> str:
        return f'cells={self.cells}, alpha={self.alpha}, grid_size={self.grid}, by={self.by!r}'


def _check_grid_size(grid_size: int | Sequence[int]) -> tuple[int, int]:
    grid = tuple(grid_size) if isinstance(grid_size, Sequence) else (grid_size, grid_size)
    if len(grid) == 2 and all(isinstance(side, Integral) and side >= 1 for side in grid) and max(grid) > 1:
        return int(grid[0]), int(grid[1])
    raise ValueError(
        f'grid_size of AttentiveMix has to be a whole number of at least 2, or rows and columns of more than one cell, '
        f'but got {grid_size!r}'
    )
