"""Saliency of blocks, and the cost of mixing two images block by block.

After `Puzzle Mix: Exploiting Saliency and Local Statistics for Optimal Mixup <https://arxiv.org/abs/2009.06962>`_. An
image is cut into ``n x n`` blocks of its own aspect ratio.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# Keeps the logarithm of an impossible label's probability finite.
MIN_PROBABILITY = 1e-8


def block_saliency(gradients: Tensor, blocks: int) -> Tensor:
    """Saliency of each block: the norm over channels of the loss's gradient at the image, averaged over the block.

    Args:
        gradients (Tensor): ``(B, C, H, W)``, floating.
        blocks (int): ``n``, which divides ``H`` and ``W``.

    Returns:
        Tensor: ``(B, n, n)``, summing to 1 for each image, float32 or wider. If an image's gradient is zero or not
        finite, its saliency is uniform.
    """
    gradients = gradients.to(torch.promote_types(gradients.dtype, torch.float32))
    # On the CPU `vector_norm` over channels takes fifty times as long.
    norms = gradients.square().sum(dim=1).sqrt()
    saliency = F.avg_pool2d(norms, [side // blocks for side in norms.shape[-2:]])
    total = saliency.sum(dim=(1, 2), keepdim=True)
    return torch.where(torch.isfinite(total) & (total > 0), saliency / total, 1 / blocks**2)


def block_colours(images: Tensor, blocks: int, cell: int = 4) -> Tensor:
    """Mean colours of the cells that each block consists of.

    Args:
        images (Tensor): ``(B, C, H, W)``, floating.
        blocks (int): ``n``, which divides ``H`` and ``W``.
        cell (int): Largest side of a cell in pixels; the side is its largest value that divides a block's side.
            Defaults to 4.

    Returns:
        Tensor: ``(B, C, n, i, n, j)``, mean colours of ``i x j`` cells per block, float32 or wider.
    """
    images = images.to(torch.promote_types(images.dtype, torch.float32))
    pixels = []
    for side in images.shape[-2:]:
        block = side // blocks
        pixels.append(next(part for part in range(min(cell, block), 0, -1) if block % part == 0))
    return F.avg_pool2d(images, pixels).unflatten(3, (blocks, -1)).unflatten(2, (blocks, -1))


def border_jumps(colours: Tensor, next_colours: Tensor) -> tuple[Tensor, Tensor]:
    """Colour differences along the border between a block of one image and the next block of another.

    Args:
        colours (Tensor): From :func:`block_colours`; provides the upper or left block.
        next_colours (Tensor): Same shape; provides the lower or right block.

    Returns:
        tuple[Tensor, Tensor]: ``(B, n - 1, n)`` downwards and ``(B, n, n - 1)`` to the right: the absolute difference,
        averaged over channels and the cells along the border.
    """
    down = colours[:, :, :-1, -1] - next_colours[:, :, 1:, 0]
    right = colours[:, :, :, :, :-1, -1] - next_colours[:, :, :, :, 1:, 0]
    return down.abs().mean(dim=(1, 4)), right.abs().mean(dim=(1, 3))


def puzzle_energy(
    saliency: Tensor,
    colours: Tensor,
    pairs: Tensor,
    share: float,
    num_labels: int = 3,
    beta: float = 1.2,
    gamma: float = 0.5,
    eta: float = 0.2,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Energy of a labelling of the blocks, as costs and weights for graph cuts.

    Label :math:`l` of a block gives it the source's share :math:`z = l / (L - 1)`. With the saliencies :math:`a` of
    the source and :math:`b` of the target, :math:`\beta' = \beta / 16n` as in the authors' code, and :math:`D_{uv}` the
    jump from a block of image ``u`` to the next block of image ``v`` (0: target, 1: source), a labelling costs

    .. math::
        \sum_i z_i b_i + (1 - z_i) a_i - \frac{\eta}{n^2} \log p(z_i)
        + \sum_{(i, j)} \beta' (z_i - z_j)^2 + \beta' \gamma D_{ij}(z_i, z_j)

    :math:`p` is binomial, of :math:`L - 1` draws with probability ``share``, and :math:`D_{ij}(z_i, z_j)` is
    :math:`D_{z_i z_j}` for shares of 0 and 1, extended to shares in between by :math:`(z_i - z_j)^2` and terms linear
    in :math:`z`. Up to a constant the energy is thus a sum of costs of single blocks and weights of
    :math:`(z_i - z_j)^2`.

    Args:
        saliency (Tensor): ``(B, n, n)``, summing to 1 for each image.
        colours (Tensor): ``(B, C, n, i, n, j)`` of the images, see :func:`block_colours`, in [0, 1] up to a shift.
        pairs (Tensor): ``(B,)`` int64, the source of each image.
        share (float): The source's wanted share of the area, in [0, 1].
        num_labels (int): ``L``, at least 2. Defaults to 3, shares of 0, 1/2 and 1.
        beta (float): Weight of label differences between neighbours. Defaults to 1.2.
        gamma (float): Weight of colour jumps. Defaults to 0.5.
        eta (float): Weight of the wanted share. Defaults to 0.2.

    Returns:
        tuple[Tensor, Tensor, Tensor]:

        - Costs ``(B, n, n, L)`` of giving a block a label.
        - Weights ``(B, n - 1, n)`` of :math:`(z_i - z_j)^2` between a block and the one below, at least 0.
        - Weights ``(B, n, n - 1)`` between a block and the one to the right, at least 0.
    """
    blocks, steps = saliency.shape[-1], num_labels - 1
    beta = beta / (16 * blocks)
    source, source_colours = saliency[pairs], colours[pairs]

    # Costs at z = 0 and z = 1, linear in between. Each includes half of the jumps to both states of a neighbour.
    ends = [source.clone(), saliency.clone()]
    jumps = [
        [border_jumps(first, second) for second in (colours, source_colours)] for first in (colours, source_colours)
    ]
    weights = []
    for axis in (0, 1):
        (stay, enter), (leave, inside) = ((jump[axis] for jump in row) for row in jumps)
        size = stay.shape[axis + 1]
        for z in (0, 1):
            ends[z].narrow(axis + 1, 0, size).add_((jumps[z][0][axis] + jumps[z][1][axis]) * (beta * gamma / 2))
            ends[z].narrow(axis + 1, 1, size).add_((jumps[0][z][axis] + jumps[1][z][axis]) * (beta * gamma / 2))
        # Graph cuts need non-negative weights; colours out of range could make them negative.
        weights.append((beta + beta * gamma / 2 * (enter + leave - stay - inside)).clamp(min=0))

    costs = []
    for label in range(num_labels):
        chance = math.comb(steps, label) * share**label * (1 - share) ** (steps - label)
        prior = -eta / blocks**2 * math.log(max(chance, MIN_PROBABILITY))
        costs.append(torch.lerp(ends[0], ends[1], label / steps) + prior)
    return torch.stack(costs, dim=-1), weights[0], weights[1]


def transport_cost(saliency: Tensor, visible: Tensor, weight: float = 0.8) -> Tensor:
    r"""Cost of moving each block of an image to each place in it.

    Block ``i`` of saliency ``a`` at place ``j`` costs :math:`v_j (w\,d^2 / (n - 1)^2 - a_i)`, with ``d`` the distance
    between the two in blocks. A more salient block gains more from a place that will be visible. A hidden place costs
    nothing for any block.

    Args:
        saliency (Tensor): ``(B, n, n)``, summing to 1 for each image, ``n`` at least 2.
        visible (Tensor): ``(B, n, n)`` bool, True where the image is at least partly visible after mixing.
        weight (float): Weight of the distance. Defaults to 0.8.

    Returns:
        Tensor: ``(B, n * n, n * n)``, places by blocks.
    """
    blocks = saliency.shape[-1]
    axis = torch.arange(blocks, device=saliency.device)
    squares = (axis.unsqueeze(1) - axis).square()
    distance = squares[:, None, :, None] + squares[None, :, None, :]
    distance = distance.reshape(blocks**2, blocks**2).to(saliency.dtype) / (blocks - 1) ** 2
    return visible.flatten(1).unsqueeze(2) * (weight * distance - saliency.flatten(1).unsqueeze(1))


def arrange_blocks(images: Tensor, order: Tensor) -> Tensor:
    """Moves the blocks of each image.

    Args:
        images (Tensor): ``(B, C, H, W)``, of any dtype, with sides divisible by ``n``.
        order (Tensor): ``(B, n * n)`` int64, the block that goes to each place, both in row-major order.

    Returns:
        Tensor: A new tensor ``(B, C, H, W)`` in the memory format of ``images``; every pixel is a copy of an input
        pixel.
    """
    blocks = math.isqrt(order.shape[1])
    arranged = torch.empty_like(images)
    split, places = (whole.unflatten(3, (blocks, -1)).unflatten(2, (blocks, -1)) for whole in (images, arranged))
    batch = torch.arange(len(images), device=images.device).unsqueeze(1)
    order = order.unflatten(1, (blocks, blocks))
    row = torch.div(order, blocks, rounding_mode='floor')
    moved = split.permute(0, 2, 4, 1, 3, 5)[batch.unsqueeze(2), row, order % blocks]
    places.copy_(moved.permute(0, 3, 1, 4, 2, 5))
    return arranged
