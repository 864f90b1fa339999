"""Saliency of images from their pixels alone, and boxes around salient pixels."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# Smaller amplitudes of a spectrum are raised to this before the logarithm.
MIN_AMPLITUDE = 1e-8


def spectral_residual(images: Tensor, width: int = 64, sigma: float = 2.5) -> Tensor:
    r"""Saliency of images by the difference of their log spectrum from its local average.

    `Saliency Detection: A Spectral Residual Approach <https://doi.org/10.1109/CVPR.2007.383267>`_ (CVPR 2007). A shrunk
    grey copy has the spectrum :math:`A e^{iP}`. The residual is :math:`R = \log A - h * \log A`, with ``h`` the mean
    over 3 x 3 frequencies (the spectrum is periodic), and the saliency is :math:`g * |F^{-1} e^{R + iP}|^2`, with ``g``
    a Gaussian.

    Grey is the mean over channels, stretched to [0, 1]. Brightness and contrast of an image therefore have no effect,
    nor has a normalisation that treats channels alike.

    Args:
        images (Tensor): ``(B, C, H, W)``, of any dtype.
        width (int): The grey copy is shrunk to this many columns, with rows in proportion, by averaging; narrower
            images are not enlarged. Defaults to 64.
        sigma (float): Standard deviation of the Gaussian, in pixels of the grey copy. Defaults to 2.5.

    Returns:
        Tensor: ``(B, h, w)``, not negative, on the pixels of the grey copy, float32 or wider.
    """
    grey = images.to(torch.promote_types(images.dtype, torch.float32)).mean(dim=1)
    height, full_width = grey.shape[-2:]
    if full_width > width:
        grey = F.adaptive_avg_pool2d(grey, (max(1, round(height * width / full_width)), width))
    lowest, highest = grey.amin(dim=(1, 2), keepdim=True), grey.amax(dim=(1, 2), keepdim=True)
    grey = (grey - lowest) / (highest - lowest).clamp(min=torch.finfo(grey.dtype).tiny)

    spectrum = torch.fft.fft2(grey)
    log_amplitude = spectrum.abs().clamp(min=MIN_AMPLITUDE).log()
    around = F.pad(log_amplitude.unsqueeze(1), (1, 1, 1, 1), mode='circular')
    residual = log_amplitude - F.avg_pool2d(around, 3, stride=1).squeeze(1)
    return gaussian_blur(torch.fft.ifft2(torch.polar(residual.exp(), spectrum.angle())).abs().square(), sigma)


def gaussian_blur(maps: Tensor, sigma: float) -> Tensor:
    """Blurs maps by a Gaussian, cut off at three standard deviations, with zeros beyond the edges.

    Args:
        maps (Tensor): ``(B, h, w)``, floating.
        sigma (float): Standard deviation in cells, greater than 0.

    Returns:
        Tensor: Same shape.
    """
    radius = math.ceil(3 * sigma)
    places = torch.arange(-radius, radius + 1, device=maps.device, dtype=maps.dtype)
    weights = (-0.5 * (places / sigma).square()).exp()
    weights = weights / weights.sum()
    padded = F.pad(maps, (radius,) * 4)
    # Sums of products instead of a convolution, which autocast would round.
    for axis in (1, 2):
        padded = (padded.unfold(axis, len(weights), 1) * weights).sum(dim=-1)
    return padded


def peak_pixels(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """The pixel of each image at the largest value of its map; ties go to the first in row-major order.

    Args:
        maps (Tensor): ``(B, h, w)``.
        size (tuple[int, int]): Height and width of the images in pixels.

    Returns:
        Tensor: ``(B, 2)`` int64, row and column of the pixel in the middle of the area that the map's cell covers.
    """
    grid = tuple(maps.shape[-2:])
    index = maps.flatten(1).argmax(dim=1)
    cells = torch.div(index, grid[1], rounding_mode='floor'), index % grid[1]
    places = [
        torch.div((2 * cell + 1) * side, 2 * cell_count, rounding_mode='floor')
        for cell, side, cell_count in zip(cells, size, grid, strict=True)
    ]
    return torch.stack(places, dim=1)


def box_mask_around(centre: Tensor, share: float, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The box of :func:`smmix_mm.functional.clipped_box` around a pixel that is known only on the device.

    Args:
        centre (Tensor): ``(2,)`` integers, row and column, inside the image.
        share (float): Wanted share of the area, in [0, 1].
        size (tuple[int, int]): Height and width of the image in pixels.

    Returns:
        tuple[Tensor, Tensor]: The mask ``(H, W)`` bool, and the clipped box's part of the area, a float32 scalar in
        [0, 1].
    """
    inside = []
    for place, side in zip(centre, size, strict=True):
        half = int(side * math.sqrt(share)) // 2
        positions = torch.arange(side, device=centre.device)
        inside.append((positions >= place - half) & (positions < place + half))
    rows, cols = inside
    return rows.unsqueeze(1) & cols.unsqueeze(0), rows.sum() * cols.sum() / (size[0] * size[1])
