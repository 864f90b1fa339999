"""PuzzleMix: mixes blocks of both images, chosen by their saliency to the model."""

from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from smmix_mm import functional
from smmix_mm.registry import BATCH_AUGMENTS
from smmix_mm.streams import Streams, random_pairs, to_device
from smmix_mm.structures import MixedBatch, Question

from .base import Answers, MixingMethod, TrainedModel
from .checks import NOT_NEGATIVE, POSITIVE, check_number, check_range, check_whole_number

# Factor on the loss, so that half precision does not round its gradient to zero.
LOSS_SCALE = 1024.0

# Graph cuts need integer costs; the largest is scaled to this.
MAX_COST = 1_000_000


def classification_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The loss whose gradient gives the saliency: the summed cross entropy of the unmixed images, times a constant.

    Args:
        logits (Tensor): ``(B, classes)``.
        targets (Tensor): Labels ``(B, classes)``.
    """
    return -LOSS_SCALE * (targets * logits.float().log_softmax(dim=1)).sum()


@BATCH_AUGMENTS.register_module()
class PuzzleMix(MixingMethod):
    r"""Mixes block by block, so that the salient parts of both images are kept.

    `Puzzle Mix: Exploiting Saliency and Local Statistics for Optimal Mixup <https://arxiv.org/abs/2009.06962>`_ (ICML
    2020).

    Pairs are a random permutation of the batch. Images are cut into :math:`2^k \times 2^k` blocks. :math:`k`, and the
    wanted share :math:`\lambda` from Beta(alpha, alpha), are drawn once per batch. A block's saliency is the norm of
    the gradient, at the unmixed image, of the model's own classification loss. Alpha-beta swaps of graph cuts give each
    block of a pair one of ``num_labels`` shares from 0 to 1, so that the energy of
    :func:`smmix_mm.functional.puzzle_energy` is small: little saliency lost, neighbours alike, few jumps of colour
    where they differ, and about :math:`\lambda` of the area. The source's share in the label of each image is the mean
    of its mask.

    With ``transport`` the blocks of each image then change places within it, so that salient blocks move to where the
    image is visible. The cost of a visible place grows with the distance; hidden places cost nothing. Blocks are
    assigned to places optimally by :func:`scipy.optimize.linear_sum_assignment`; the authors' code assigns them
    greedily and may lose hidden blocks.

    **Cost.** The gradient takes a forward in evaluation mode and a backward to the image, without gradients of the
    weights: about two thirds of a training step more, and no parameter's ``grad`` is touched. **Then the host waits
    until the device has finished** and cuts the graphs, 0.1 to 0.4 ms an image for k = 3, while the device is idle.
    ``transport`` takes another 0.1 ms an image and copies both images. A backbone that recomputes its activations
    (``with_cp``) does so here too, in evaluation mode. Torch's reentrant checkpoints, which mmpretrain's Swin uses, do
    not work, because they allow no gradient at the image alone.

    Args:
        alpha (float): The wanted share comes from Beta(alpha, alpha). Defaults to 1.0.
        transport (bool): Whether blocks change places. Defaults to True.
        block_powers (int | tuple[int, int]): ``k``, or the range to draw it from, both ends included; at least 1. The
            sides of the images have to be multiples of the largest :math:`2^k`. Defaults to ``(1, 3)``, OpenMixup's;
            the authors draw it from 1 to 4.
        num_labels (int): Shares that a block can have, at least 2. Defaults to 3: 0, 1/2 and 1.
        beta (float): Weight of differences between neighbours' shares. Defaults to 1.2.
        gamma (float): Weight of colour jumps, in [0, 1]. Defaults to 0.5.
        eta (float): Weight of the wanted share. Defaults to 0.2.
        transport_weight (float): Weight of the distance by which blocks move. Defaults to 0.8.

    Raises:
        ValueError: If a setting is outside its range.
        ImportError: If the package ``gco-wrapper`` is not installed, or scipy with ``transport``. The wrapper is under
            the MIT licence; the graph cuts inside it have their own terms, to be read before commercial use.
    """

    questions = (Question(input_gradient=classification_loss, by='model', own_grid=True),)

    def __init__(
        self,
        alpha: float = 1.0,
        transport: bool = True,
        block_powers: int | Sequence[int] = (1, 3),
        num_labels: int = 3,
        beta: float = 1.2,
        gamma: float = 0.5,
        eta: float = 0.2,
        transport_weight: float = 0.8,
    ) -> None:
        super().__init__()
        self.alpha = check_number('PuzzleMix', 'alpha', alpha, *POSITIVE)
        self.transport = transport
        needed = 'a whole number of at least 1 or a pair 1 <= low <= high'
        self.block_powers = check_range(
            'PuzzleMix', 'block_powers', block_powers, needed, lambda low, _: low >= 1, whole=True
        )
        self.num_labels = check_whole_number('PuzzleMix', 'num_labels', num_labels, least=2)
        self.weights = dict(
            beta=check_number('PuzzleMix', 'beta', beta, *NOT_NEGATIVE),
            gamma=check_number('PuzzleMix', 'gamma', gamma, 'a number in [0, 1]', lambda weight: 0 <= weight <= 1),
            eta=check_number('PuzzleMix', 'eta', eta, *NOT_NEGATIVE),
        )
        self.transport_weight = check_number('PuzzleMix', 'transport_weight', transport_weight, *NOT_NEGATIVE)
        for module, package in [('gco', 'gco-wrapper'), *([('scipy', 'scipy')] if transport else [])]:
            if find_spec(module) is None:
                raise ImportError(f'PuzzleMix needs the package {package}, which is not installed')
        # Scales the model's input to colours in [0, 1], up to a shift.
        self.register_buffer('colour_scale', torch.ones(1, 1, 1), persistent=False)

    def prepare(self, model: TrainedModel) -> None:
        preprocessor = model.data_preprocessor
        std = getattr(preprocessor, 'std', None) if getattr(preprocessor, '_enable_normalize', False) else None
        self.colour_scale = torch.as_tensor(1.0 if std is None else std.detach()).float().view(-1, 1, 1) / 255

    def forward(self, images: Tensor, targets: Tensor, answers: Answers, streams: Streams) -> MixedBatch:
        self._check_size(images.shape[-2], images.shape[-1])
        pairs = random_pairs(streams.local, len(images), images.device)
        share = float(streams.local.beta(self.alpha, self.alpha))
        blocks = 2 ** int(streams.local.integers(self.block_powers[0], self.block_powers[1] + 1))

        (answer,) = answers
        saliency = functional.block_saliency(answer.input_gradient, blocks)
        colours = functional.block_colours(images, blocks) * self.colour_scale[..., None, None]
        energy = functional.puzzle_energy(saliency, colours, pairs, share, self.num_labels, **self.weights)
        # From here to the end of the cuts the device is idle.
        labels = cut_graphs(*(part.cpu().numpy() for part in energy))
        mask = to_device(labels.astype(np.float32) / (self.num_labels - 1), images.device)

        sources = images[pairs]
        if self.transport:
            sources = self._transport(sources, saliency[pairs], labels > 0)
            images = self._transport(images, saliency, labels < self.num_labels - 1)
        share = mask.mean(dim=(1, 2)).unsqueeze(1)
        return MixedBatch(
            images=functional.mix_masked(images, sources, mask),
            targets=functional.mix_pairs(targets, share, pairs),
            share=share,
            source_mask=mask,
        )

    def _transport(self, images: Tensor, saliency: Tensor, visible: np.ndarray) -> Tensor:
        # Imported here, because nothing else in the plugin needs scipy.
        from scipy.optimize import linear_sum_assignment

        cost = functional.transport_cost(saliency.cpu(), torch.as_tensor(visible), self.transport_weight)
        order = np.stack([linear_sum_assignment(image)[1] for image in cost.numpy()])
        return functional.arrange_blocks(images, to_device(order, images.device))

    def _check_size(self, height: int, width: int) -> None:
        multiple = 2 ** self.block_powers[1]
        if height % multiple or width % multiple:
            raise ValueError(
                f'block_powers={self.block_powers} of PuzzleMix need images whose sides are multiples of {multiple} '
                f'pixels, but got {height} x {width}'
            )

    def extra_repr(self) -> str:
        weights = ', '.join(f'{name}={value}' for name, value in self.weights.items())
        return (
            f'alpha={self.alpha}, transport={self.transport}, block_powers={self.block_powers}, '
            f'num_labels={self.num_labels}, {weights}, transport_weight={self.transport_weight}'
        )


def cut_graphs(costs: np.ndarray, down: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Finds labels of low energy by alpha-beta swaps; each image's costs are rounded to a millionth of the largest.

    Args:
        costs (np.ndarray): ``(B, n, n, L)``, cost of each label at each block.
        down (np.ndarray): ``(B, n - 1, n)``, weights of ``(z_i - z_j) ** 2`` between a block and the one below.
        right (np.ndarray): ``(B, n, n - 1)``, weights between a block and the one to the right.

    Returns:
        np.ndarray: ``(B, n, n)`` whole numbers from 0 to ``L - 1``.
    """
    # Imported here, because only this method needs gco, and importing it adds names to numpy.
    import gco

    steps = costs.shape[-1] - 1
    differences = np.subtract.outer(np.arange(steps + 1), np.arange(steps + 1)) ** 2
    labels = []
    for cost, below, beside in zip(costs, down, right, strict=True):
        scale = MAX_COST / max(np.abs(cost).max(), below.max(), beside.max())
        whole = [np.rint(part * scale).astype(np.int32) for part in (cost, below / steps**2, beside / steps**2)]
        cut = gco.cut_grid_graph(whole[0], differences.astype(np.int32), whole[1], whole[2], algorithm='swap')
        labels.append(cut.reshape(cost.shape[:2]))
    return np.stack(labels)
