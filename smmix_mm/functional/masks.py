"""Masks and boxes, inside which pixels of the source replace those of the target."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# Top, left, bottom, right: from the first row and column inside to the first outside.
Box = tuple[int, int, int, int]


def clipped_box(centre: Sequence[int], share: float, size: tuple[int, int]) -> Box:
    r"""The box around a pixel that covers a wanted share of the area, clipped to the image.

    `CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features
    <https://arxiv.org/abs/1905.04899>`_: sides of :math:`\sqrt{share}` of the image's, rounded down to an even number
    of pixels.

    Args:
        centre (Sequence[int]): Row and column, inside the image.
        share (float): Wanted share of the area, in [0, 1]. :func:`box_share` gives the share after clipping.
        size (tuple[int, int]): Height and width of the image in pixels.

    Returns:
        tuple[int, int, int, int]: Top, left, bottom, right in pixels; possibly empty or the whole image.
    """
    halves = [int(side * math.sqrt(share)) // 2 for side in size]
    top, left = (max(place - half, 0) for place, half in zip(centre, halves, strict=True))
    bottom, right = (min(place + half, side) for place, half, side in zip(centre, halves, size, strict=True))
    return top, left, bottom, right


def box_share(box: Box, size: tuple[int, int]) -> float:
    """The box's part of the area of an image ``(height, width)``, in [0, 1]."""
    top, left, bottom, right = box
    return (bottom - top) * (right - left) / (size[0] * size[1])


def box_mask(
    box: Box, size: tuple[int, int], grid: tuple[int, int] | None = None, device: torch.device | str | None = None
) -> Tensor:
    """A mask that is True inside a box, for pixels or, by nearest neighbour, for tokens.

    Args:
        box (tuple[int, int, int, int]): Top, left, bottom, right in pixels.
        size (tuple[int, int]): Height and width of the image in pixels.
        grid (tuple[int, int], optional): Token grid ``(h, w)``. Token ``(i, j)`` is inside if the pixel
            ``(floor(i * H / h), floor(j * W / w))`` is. Defaults to None, a mask of pixels.
        device (torch.device, optional): Device to create the mask on, without a copy.

    Returns:
        Tensor: ``(h, w)`` or ``(H, W)`` bool.
    """
    grid = grid or size
    # floor(i * H / h) >= top is i >= ceil(top * h / H), in whole numbers.
    top, left, bottom, right = (
        -(-edge * grid[axis] // size[axis]) for edge, axis in zip(box, (0, 1, 0, 1), strict=True)
    )
    mask = torch.zeros(grid, dtype=torch.bool, device=device)
    mask[top:bottom, left:right].fill_(True)
    return mask


def paste_box_(images: Tensor, box: Box, pairs: Tensor | None = None) -> Tensor:
    """Copies the box of each source over the same place of its target, in place.

    Args:
        images (Tensor): ``(B, C, H, W)``, of any dtype. Only the box is written to.
        box (tuple[int, int, int, int]): Top, left, bottom, right in pixels.
        pairs (Tensor, optional): ``(B,)`` int64, the source of each image. Defaults to None, the reversed batch.

    Returns:
        Tensor: ``images``.
    """
    top, left, bottom, right = box
    inside = images[:, :, top:bottom, left:right]
    # Both make a copy, so no target is read after it was written to.
    inside.copy_(inside.flip(0) if pairs is None else inside[pairs])
    return images


def paste_resized_(images: Tensor, box: Box, pairs: Tensor, interpolation: str = 'nearest') -> Tensor:
    """Resizes the whole source of each image to a box and pastes it there, in place.

    Args:
        images (Tensor): ``(B, C, H, W)``, floating. Only the box is written to.
        box (tuple[int, int, int, int]): Top, left, bottom, right in pixels. Nothing is pasted if it is empty.
        pairs (Tensor): ``(B,)`` int64, the source of each image.
        interpolation (str): ``'nearest'`` or ``'bilinear'``, as in :func:`torch.nn.functional.interpolate`. Defaults to
            ``'nearest'``.

    Returns:
        Tensor: ``images``.
    """
    top, left, bottom, right = box
    size = bottom - top, right - left
    if min(size) > 0:
        align = None if interpolation == 'nearest' else False
        # The indexing copies, so no source is read after it was written to.
        small = F.interpolate(images[pairs], size, mode=interpolation, align_corners=align)
        images[:, :, top:bottom, left:right] = small
    return images


def mix_masked(images: Tensor, sources: Tensor, mask: Tensor) -> Tensor:
    """Mixes by a mask: the source where it is True, the target elsewhere, or a blend for a mask of numbers.

    Args:
        images (Tensor): The targets ``(B, C, H, W)``, floating unless the mask is bool.
        sources (Tensor): The source of each, same shape and memory format.
        mask (Tensor): ``(h, w)`` for all images or ``(B, h, w)``, of pixels or of a grid that divides the sides of
            the images. Bool, or the source's part in [0, 1], through which gradients flow.

    Returns:
        Tensor: A new tensor ``(B, C, H, W)`` in that memory format. Where the mask is 0 or 1, pixels are
        exact copies.

    Raises:
        ValueError: If the mask's grid does not divide the sides of the images.
    """
    mask = pixel_mask(mask, tuple(images.shape[-2:])).unsqueeze(-3)
    if mask.dtype == torch.bool:
        return torch.where(mask, sources, images)
    return torch.lerp(images, sources, mask.to(images.dtype))


def pixel_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Expands a mask of tokens to pixels: every pixel gets the value of its token.

    Args:
        mask (Tensor): ``(..., h, w)``.
        size (tuple[int, int]): Height and width of the images in pixels.

    Returns:
        Tensor: ``(..., H, W)``; the mask itself if it already has that size.

    Raises:
        ValueError: If the mask's grid does not divide the sides of the images.
    """
    grid = tuple(mask.shape[-2:])
    if grid == tuple(size):
        return mask
    if size[0] % grid[0] or size[1] % grid[1]:
        raise ValueError(
            f'the grid of a mask has to divide the sides of the images, but got a grid of {grid[0]} x {grid[1]} for '
            f'images of {size[0]} x {size[1]} pixels'
        )
    patch = size[0] // grid[0], size[1] // grid[1]
    leading = mask.shape[:-2]
    pixels = mask[..., :, None, :, None].expand(*leading, grid[0], patch[0], grid[1], patch[1])
    return pixels.reshape(*leading, *size)


def strongest_cells(scores: Tensor, count: int) -> Tensor:
    """A mask that is True at the largest scores of each image; ties go to the first in row-major order.

    Args:
        scores (Tensor): ``(B, h, w)``.
        count (int): Cells to take, from 0 to ``h * w``.

    Returns:
        Tensor: ``(B, h, w)`` bool with ``count`` True entries an image.
    """
    order = scores.flatten(1).argsort(dim=1, descending=True, stable=True)
    # Compares ranks instead of writing at indices that are known only on the device.
    return (order.argsort(dim=1) < count).view(scores.shape)
