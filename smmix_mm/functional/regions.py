"""Windows of the token grid: sums, positions and pasting.

Sections refer to `SMMix: Self-Motivated Image Mixing for Vision Transformers <https://arxiv.org/abs/2212.12977>`_.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from smmix_mm.compat import is_compiling

Region = tuple[int, int]

# Number of images whose windows are copied at once on the CPU.
CUT_ON_CPU = 16


def window_sums(scores: Tensor, region: Region) -> Tensor:
    """Sum of the scores in every window of the given size inside the grid.

    Args:
        scores (Tensor): ``(B, h, w)``, of any floating dtype.
        region (tuple[int, int]): Window ``(rows, cols)``.

    Returns:
        Tensor: ``(B, h - rows + 1, w - cols + 1)``, float32 or wider. Entry ``[b, i, j]`` belongs to the window whose
        first token is ``(i, j)``. Windows of equal content have bit-identical sums, because all are added up in the
        same order.

    Raises:
        ValueError: If the region has no token or does not fit into the grid.
    """
    _check_region(region, scores.shape[-2:])
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    return F.avg_pool2d(scores.unsqueeze(1), region, stride=1, divisor_override=1).squeeze(1)


def max_windows(scores: Tensor, region: Region) -> Tensor:
    """The window with the largest sum in each image; ties go to the first in row-major order.

    Args:
        scores (Tensor): ``(B, h, w)``.
        region (tuple[int, int]): Window ``(rows, cols)``.

    Returns:
        Tensor: ``(B, 2)`` int64, row and column of each window's first token.
    """
    sums = window_sums(scores, region)
    return _unflatten(sums.flatten(1).argmax(dim=1), sums.shape[-1])


def min_windows(scores: Tensor, region: Region) -> Tensor:
    """The window with the smallest sum in each image; otherwise like :func:`max_windows`."""
    sums = window_sums(scores, region)
    return _unflatten(sums.flatten(1).argmin(dim=1), sums.shape[-1])


def cutmix_windows(corner: tuple[int, int], batch_size: int, device: torch.device | str | None = None) -> Tensor:
    """The same window for every image, as CutMix places it.

    Args:
        corner (tuple[int, int]): Row and column of the window's first token.
        batch_size (int): ``B``.
        device (torch.device, optional): Where to put the result.

    Returns:
        Tensor: ``(B, 2)`` int64.
    """
    return torch.stack([torch.full((batch_size,), start, device=device) for start in corner], dim=1)


def window_mask(corners: Tensor, region: Region, grid: tuple[int, int]) -> Tensor:
    """A mask that is True inside each image's window.

    Args:
        corners (Tensor): ``(B, 2)``, row and column of each window's first token.
        region (tuple[int, int]): Window ``(rows, cols)``.
        grid (tuple[int, int]): Token grid ``(h, w)``.

    Returns:
        Tensor: ``(B, h, w)`` bool with ``rows * cols`` True entries per image.
    """
    inside = [
        (positions >= start.unsqueeze(1)) & (positions < start.unsqueeze(1) + size)
        for positions, start, size in zip(
            (torch.arange(side, device=corners.device) for side in grid), corners.unbind(1), region, strict=True
        )
    ]
    return inside[0].unsqueeze(2) & inside[1].unsqueeze(1)


def paste_windows(
    images: Tensor, source_corners: Tensor, target_corners: Tensor, region: Region, grid: tuple[int, int]
) -> Tensor:
    """Copies a window of each source over a window of its target.

    Args:
        images (Tensor): ``(B, C, H, W)``, of any dtype; ``H / h`` and ``W / w`` must be whole numbers.
        source_corners (Tensor): ``(B, 2)`` in tokens, where the region is cut from the *source* of image ``b``.
        target_corners (Tensor): ``(B, 2)`` in tokens, where it is pasted into image ``b``.
        region (tuple[int, int]): ``(rows, cols)`` in tokens.
        grid (tuple[int, int]): Token grid ``(h, w)``.

    Returns:
        Tensor: A new tensor ``(B, C, H, W)`` in the memory format of ``images``; every pixel is a copy of an input
        pixel.

    Raises:
        ValueError: If the grid does not divide the sides of the images, or the region does not fit into the grid.
    """
    _check_region(region, grid)
    patch = _patch_size(images, grid)
    mixed = images.clone()
    if torch.are_deterministic_algorithms_enabled() or is_compiling():
        # The windows of the view below overlap. Deterministic writes on CUDA copy the whole view out and back, which
        # is wrong for overlapping windows, and torch.compile refuses to write to such a view.
        source = _window_tokens(source_corners, region)
        target = _window_tokens(target_corners, region)
        _tokens(mixed, grid)[target] = _tokens(images.flip(0), grid)[source]
        return mixed
    # An indexed copy of strided views; gathering over whole images takes three to eight times as long.
    batch = torch.arange(len(images), device=images.device)
    read, written, patch = _widen(images, mixed, patch)
    read, written = _windows(read, region, patch), _windows(written, region, patch)
    index = torch.stack([batch.flip(0), batch, *source_corners.unbind(1), *target_corners.unbind(1)])
    # On the CPU a large copy gets new memory pages for every batch; small parts reuse the same pages.
    for part in index.split(CUT_ON_CPU if images.device.type == 'cpu' else len(images), dim=1):
        sources, targets, source_rows, source_cols, target_rows, target_cols = part
        written[targets, :, target_rows, target_cols] = read[sources, :, source_rows, source_cols]
    return mixed


def max_min_corners(attention: Tensor, region: Region) -> tuple[Tensor, Tensor]:
    """Corners at which max-min attention region mixing cuts and pastes (section 3.2).

    Args:
        attention (Tensor): ``(B, h, w)``, how much attention each token of each image receives.
        region (tuple[int, int]): ``(rows, cols)`` in tokens, from ``(1, 1)`` to the whole grid.

    Returns:
        tuple[Tensor, Tensor]: ``(B, 2)`` each. For image ``b``, the first token of the most attended window of its
        source, image ``B - 1 - b``, and the first token of its own least attended window.
    """
    sums = window_sums(attention, region)
    flat = sums.flatten(1)
    corners = _unflatten(torch.cat([flat.argmax(dim=1).flip(0), flat.argmin(dim=1)]), sums.shape[-1])
    return corners[: len(sums)], corners[len(sums) :]


def max_min_mix(images: Tensor, attention: Tensor, region: Region) -> tuple[Tensor, Tensor]:
    """Max-min attention region mixing (section 3.2).

    The source's window with the largest summed attention overwrites the target's window with the smallest, patch by
    patch. The two windows usually lie at different places.

    Args:
        images (Tensor): ``(B, C, H, W)``, of any dtype.
        attention (Tensor): ``(B, h, w)``, how much attention each token of each image receives.
        region (tuple[int, int]): ``(rows, cols)`` in tokens, from ``(1, 1)`` to the whole grid.

    Returns:
        tuple[Tensor, Tensor]:

        - ``mixed``: a new tensor ``(B, C, H, W)``; every pixel is a copy of an input pixel.
        - ``source_mask``: ``(B, h, w)`` bool, True where source tokens were pasted.

    Raises:
        ValueError: If batch sizes differ, the grid does not divide the sides of the images, or the region does not
            fit into the grid.
    """
    if images.ndim != 4 or attention.ndim != 3 or len(images) != len(attention):
        raise ValueError(
            f'images must be (B, C, H, W) and attention (B, h, w) with the same B, but got {tuple(images.shape)} and '
            f'{tuple(attention.shape)}'
        )
    grid = tuple(attention.shape[-2:])
    source_corners, target_corners = max_min_corners(attention, region)
    mixed = paste_windows(images, source_corners, target_corners, region, grid)
    return mixed, window_mask(target_corners, region, grid)


def _unflatten(index: Tensor, columns: int) -> Tensor:
    return torch.stack([torch.div(index, columns, rounding_mode='floor'), index % columns], dim=1)


def _widen(images: Tensor, mixed: Tensor, patch: tuple[int, int]) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Views the same memory as elements of 16 bytes, if each row of a patch consists of whole ones.

    Indexed copies move one element at a time, whatever its size, so wider elements are faster.

    Args:
        images (Tensor): ``(B, C, H, W)``.
        mixed (Tensor): Same shape and layout.
        patch (tuple[int, int]): Height and width in pixels.

    Returns:
        tuple[Tensor, Tensor, tuple[int, int]]: The unchanged arguments; or both batches as ``(B, C, H, W')`` of wide
        elements, with channels folded into the rows if they come last in memory, and the patch in these elements.
    """
    unchanged = images, mixed, patch
    height, width = patch
    if images.device.type not in ('cpu', 'cuda') or images.requires_grad:
        return unchanged
    if not images.is_contiguous():
        if not images.is_contiguous(memory_format=torch.channels_last):
            return unchanged
        width *= images.shape[1]
        images, mixed = (batch.permute(0, 2, 3, 1).flatten(2).unsqueeze(1) for batch in (images, mixed))
    count = 16 // images.element_size()
    # Memory from elsewhere, such as NumPy's, may be unaligned.
    if width % count or any(batch.data_ptr() % 16 for batch in (images, mixed)):
        return unchanged
    # Flattened first, because dimensions of length 1 can have any stride.
    read, written = (batch.view(-1).view(torch.complex128).view(*batch.shape[:3], -1) for batch in (images, mixed))
    return read, written, (height, width // count)


def _windows(images: Tensor, region: Region, patch: tuple[int, int]) -> Tensor:
    """View ``(B, C, h - rows + 1, w - cols + 1, rows * patch_h, cols * patch_w)`` of all windows of the token grid."""
    return images.unfold(2, region[0] * patch[0], patch[0]).unfold(3, region[1] * patch[1], patch[1])


def _tokens(images: Tensor, grid: tuple[int, int]) -> Tensor:
    """View ``(B, C, h, patch_h, w, patch_w)`` of the pixels of each token."""
    return images.unflatten(3, (grid[1], -1)).unflatten(2, (grid[0], -1))


def _window_tokens(corners: Tensor, region: Region) -> tuple[Tensor | slice, ...]:
    """Index of each image's window in the view of :func:`_tokens`."""
    batch, rows, cols = (torch.arange(size, device=corners.device) for size in (len(corners), *region))
    rows = corners[:, 0].view(-1, 1, 1) + rows.view(1, -1, 1)
    cols = corners[:, 1].view(-1, 1, 1) + cols.view(1, 1, -1)
    return batch.view(-1, 1, 1), slice(None), rows, slice(None), cols


def _patch_size(images: Tensor, grid: tuple[int, int]) -> tuple[int, int]:
    height, width = images.shape[-2:]
    if height % grid[0] or width % grid[1]:
        raise ValueError(
            f'the token grid has to divide the sides of the images, but got a grid of {grid[0]} x {grid[1]} for images '
            f'of {height} x {width} pixels'
        )
    return height // grid[0], width // grid[1]


def _check_region(region: Region, grid: tuple[int, int]) -> None:
    if not (1 <= region[0] <= grid[0] and 1 <= region[1] <= grid[1]):
        raise ValueError(
            f'region has to be between (1, 1) and the grid {tuple(grid)} in tokens, but got {tuple(region)}'
        )
