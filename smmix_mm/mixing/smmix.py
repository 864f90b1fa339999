"""SMMix: the attention of the model under training decides which region to cut and where to paste it."""

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from smmix_mm import functional
from smmix_mm.functional import Region
from smmix_mm.losses.smmix_loss import SMMixLoss
from smmix_mm.registry import BATCH_AUGMENTS, MODELS
from smmix_mm.streams import Streams
from smmix_mm.structures import Criterion, Features, MixedBatch, Motivation, Question, RegionClassifier

from .base import Answers, MixingMethod
from .checks import check_choice, check_number, check_range
from .labels import label_by_attention, label_by_content

SCORES = ('attention', 'activation', 'class_activation')


@BATCH_AUGMENTS.register_module()
class SMMix(MixingMethod):
    r"""Self-motivated image mixing.

    `SMMix: Self-Motivated Image Mixing for Vision Transformers <https://arxiv.org/abs/2212.12977>`_ (ICCV 2023).

    One region size is drawn per batch. Image ``b`` is the target, image ``B - 1 - b`` its source. The source's most
    attended window of that size overwrites the target's least attended one (section 3.2). With the source's share
    :math:`\lambda`, the label is :math:`\lambda y_A + (1 - \lambda) y_B`; see :class:`smmix_mm.SMMixLoss` for the
    losses. Where the paper and the authors' code differ, the defaults are the code's, which produced the published
    figures.

    Args:
        side_ratio (float | tuple[float, float]): Side of the region over the side of the grid: a number in (0, 1), or
            a range ``0 <= low <= high <= 1`` to draw from. Defaults to ``(0.25, 0.75)``.
        region_rule (str): ``'integer'`` draws the region's shorter side uniformly from the whole numbers
            ``floor(low * g) .. floor(high * g)``, both included, ``g`` being the grid's shorter side; the longer side
            follows in proportion, rounded (the authors' code). ``'ratio'`` draws :math:`\delta \sim U(low, high)` and
            takes ``floor(delta * h) x floor(delta * w)`` (the paper). Regions without a token and the whole grid are
            never drawn. Defaults to ``'integer'``.
        placement (str): ``'max_min'``, or ``'cutmix'`` for a random window at the same place in source and target
            (the paper's ablation). Defaults to ``'max_min'``.
        region_head (str): ``'separate'``, a linear layer of its own classifies regions, as in the authors' code;
            ``'shared'``, the stock head does. Defaults to ``'separate'``.
        consistency (str): What the prediction of the mixed image should agree with: ``'logits'``, the softmax of the
            mixed logits of source and target (the authors' code); ``'probabilities'``, their mixed probabilities (the
            paper). Defaults to ``'logits'``.
        score (str, optional): What decides where regions are cut and pasted: ``'attention'``, of the last block;
            ``'activation'``, the energy of the tokens, see :func:`smmix_mm.functional.activation_score`;
            ``'class_activation'``, the scores of the predicted class at the tokens, see
            :func:`smmix_mm.functional.class_activation_score`; None, the attention in backbones where it is read, and
            the energy in others. Only the attention is in the paper. Defaults to None.
        motivated_by (str, optional): The model that gives attention and logits: ``'model'``, the one under training;
            ``'teacher'``, a frozen one (the paper's Table 9); None, the classifier's teacher if it has one, and the
            model otherwise. Defaults to None.
        motivation_scale (float): Resolution of the motivation pass relative to the images', in (0, 1]; 0.5 takes a
            quarter of its cost. Sides are rounded to the stride of the model that is asked, halves down, and its
            attention is resampled to the full grid. If the teacher gives class maps too, they have the same resolution.
            Not in the paper. Defaults to 1.
        motivation_autocast (bool): Whether the motivation pass runs under the training's autocast. False runs it in
            full precision, as the authors' code does. Defaults to True.
        label_reconstruction (str, optional): Shares of the mixed label that follow the content instead of the area (the
            paper's Table 6): ``'transmix'``, the mean of the area and of the mixed image's own attention inside the
            region, see :class:`smmix_mm.mixing.TransMix`; ``'tokenmix'``, from a teacher's class maps, see
            :class:`smmix_mm.mixing.TokenMix`: the source's map inside the window that is cut, and the target's map
            outside the window that is pasted over. These need not sum to 1. Regions and consistency keep the shares by
            area. Defaults to None, by area.
        loss (dict | SMMixLoss, optional): Config of the loss. Defaults to None: all weights are one.

    Raises:
        ValueError: If a setting is outside its range.
    """

    def __init__(
        self,
        side_ratio: float | Sequence[float] = (0.25, 0.75),
        region_rule: str = 'integer',
        placement: str = 'max_min',
        region_head: str = 'separate',
        consistency: str = 'logits',
        score: str | None = None,
        motivated_by: str | None = None,
        motivation_scale: float = 1.0,
        motivation_autocast: bool = True,
        label_reconstruction: str | None = None,
        loss: dict | SMMixLoss | None = None,
    ) -> None:
        super().__init__()
        needed = 'a number in (0, 1) or a pair 0 <= low <= high <= 1, neither (0, 0) nor (1, 1)'
        self.side_ratio = check_range(
            'SMMix', 'side_ratio', side_ratio, needed, lambda low, high: 0 <= low < 1 and 0 < high <= 1
        )
        self.region_rule = check_choice('SMMix', 'region_rule', region_rule, ('integer', 'ratio'))
        self.placement = check_choice('SMMix', 'placement', placement, ('max_min', 'cutmix'))
        self.consistency = check_choice('SMMix', 'consistency', consistency, ('logits', 'probabilities'))
        self.score = check_choice('SMMix', 'score', score, (None, *SCORES))
        self.motivated_by = check_choice('SMMix', 'motivated_by', motivated_by, (None, 'model', 'teacher'))
        self.motivation_scale = check_number(
            'SMMix', 'motivation_scale', motivation_scale, 'a number in (0, 1]', lambda value: 0 < value <= 1
        )
        self.motivation_autocast = motivation_autocast
        self.label_reconstruction = check_choice(
            'SMMix', 'label_reconstruction', label_reconstruction, (None, 'transmix', 'tokenmix')
        )
        self.loss = (
            loss if isinstance(loss, SMMixLoss) else MODELS.build({'type': 'smmix_mm.SMMixLoss', **(loss or {})})
        )
        check_choice('SMMix', 'region_head', region_head, ('separate', 'shared'))
        self.region_head = region_head if self.loss.fine_weight else None
        self.reads_class_attention = label_reconstruction == 'transmix'
        self.questions = (
            Question(
                attention=placement == 'max_min',
                score=self.score if placement == 'max_min' else None,
                logits=self.loss.con_weight > 0,
                by=self.motivated_by,
                scale=self.motivation_scale,
                autocast=self.motivation_autocast,
            ),
            *([Question(class_map=True, by='teacher')] if label_reconstruction == 'tokenmix' else []),
        )

    def forward(self, images: Tensor, targets: Tensor, answers: Answers, streams: Streams) -> MixedBatch:
        motivation, grid = answers[0], answers[0].grid
        region = self.draw_region(grid, streams.shared)
        cut, pasted = self._place(images, motivation, region, streams)
        share, pasted_mask = functional.region_share(region, grid), functional.window_mask(pasted, region, grid)
        if self.label_reconstruction == 'tokenmix':
            cut_mask = functional.window_mask(cut, region, grid)
            labels = label_by_content(targets, answers[1].class_map, cut_mask, pasted_mask)
        else:
            labels = functional.mix_pairs(targets, share)
        return MixedBatch(
            images=functional.paste_windows(images, cut, pasted, region, grid),
            targets=labels,
            share=share,
            source_mask=pasted_mask,
            source_corners=cut,
            source_targets=targets.flip(0),
            target_targets=targets,
            expected=self._expected(motivation, share),
        )

    def relabel(self, features: Features, mixed: MixedBatch) -> Tensor:
        return label_by_attention(features, mixed) if self.reads_class_attention else mixed.targets

    def losses(
        self,
        logits: Tensor,
        features: Features,
        mixed: MixedBatch,
        criterion: Criterion,
        classify_regions: RegionClassifier | None,
    ) -> dict[str, Tensor]:
        return self.loss(logits, features, mixed, criterion, classify_regions)

    def draw_region(self, grid: tuple[int, int], stream: np.random.Generator) -> Region:
        """Draws the region size of a step.

        Args:
            grid (tuple[int, int]): Token grid ``(h, w)``.
            stream (np.random.Generator): Stream to draw from.

        Returns:
            tuple[int, int]: Rows and columns in tokens, from one token to less than the grid.

        Raises:
            ValueError: If no such region exists for ``side_ratio``.
        """
        draw = self._draw_integer if self.region_rule == 'integer' else self._draw_ratio
        region = draw(grid, stream)
        if region is None:
            raise ValueError(
                f'side_ratio={self.side_ratio} with region_rule={self.region_rule!r} gives no region of at least one '
                f'token that is smaller than the token grid of {grid[0]} x {grid[1]}; use a wider range, larger images '
                f'or smaller strides'
            )
        return region

    def _draw_integer(self, grid: tuple[int, int], stream: np.random.Generator) -> Region | None:
        regions = self.list_regions(grid)
        return regions[stream.integers(len(regions))] if regions else None

    def list_regions(self, grid: tuple[int, int]) -> list[Region]:
        """Lists the region sizes that ``region_rule='integer'`` draws from, each equally likely.

        Args:
            grid (tuple[int, int]): Token grid ``(h, w)``.
        """
        low, high = self.side_ratio
        shorter, longer = min(grid), max(grid)
        regions = []
        for side in range(int(low * shorter), int(high * shorter) + 1):
            other = math.floor(side * longer / shorter + 0.5)
            if side >= 1 and (side, other) != (shorter, longer):
                regions.append((side, other) if grid[0] <= grid[1] else (other, side))
        return regions

    def _draw_ratio(self, grid: tuple[int, int], stream: np.random.Generator) -> Region | None:
        # Drawing from the valid part of the range is equivalent to redrawing until a region is valid.
        low = max(self.side_ratio[0], 1 / min(grid))
        high = min(self.side_ratio[1], math.nextafter(1.0, 0.0))
        if low > high:
            return None
        delta = stream.uniform(low, high)
        # At least one token: floor(49 * (1 / 49)) is 0 in floating point.
        rows, cols = (max(1, math.floor(delta * side)) for side in grid)
        return rows, cols

    def _place(self, images: Tensor, motivation: Motivation, region: Region, streams: Streams) -> tuple[Tensor, Tensor]:
        """Corners of the windows in the sources and in the targets, ``(B, 2)`` each."""
        if self.placement == 'max_min':
            return functional.max_min_corners(motivation.attention, region)
        corner = tuple(
            int(streams.local.integers(side - size + 1)) for side, size in zip(motivation.grid, region, strict=True)
        )
        corners = functional.cutmix_windows(corner, len(images), images.device)
        return corners, corners

    def _expected(self, motivation: Motivation, share: float) -> Tensor | None:
        if motivation.logits is None:
            return None
        logits = motivation.logits.float()
        if self.consistency == 'logits':
            return functional.mix_pairs(logits, share).softmax(dim=1)
        return functional.mix_pairs(logits.softmax(dim=1), share)

    def extra_repr(self) -> str:
        return (
            f'side_ratio={self.side_ratio}, region_rule={self.region_rule!r}, placement={self.placement!r}, '
            f'region_head={self.region_head!r}, consistency={self.consistency!r}, score={self.score!r}, '
            f'motivated_by={self.motivated_by!r}, motivation_scale={self.motivation_scale}, '
            f'motivation_autocast={self.motivation_autocast}, label_reconstruction={self.label_reconstruction!r}'
        )
