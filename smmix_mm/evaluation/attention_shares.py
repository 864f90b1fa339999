"""How much of the attention, and of an object, lies in a part of an image."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from smmix_mm import functional
from smmix_mm.functional import Region
from smmix_mm.mixing import MixingMethod, StockMixing
from smmix_mm.streams import Streams
from smmix_mm.structures import MixedBatch


def token_parts(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """The part of each token that a mask of pixels covers.

    With attention ``a`` spread evenly over each token, ``functional.attention_share(a, parts)`` is what falls inside
    the mask.

    Args:
        mask (Tensor): ``(B, H, W)`` of pixels, from 0 to 1, or bool.
        grid (tuple[int, int]): Token grid ``(h, w)``.

    Returns:
        Tensor: ``(B, h, w)``, in [0, 1].
    """
    return F.adaptive_avg_pool2d(mask.float().unsqueeze(1), grid).squeeze(1)


@dataclass(frozen=True)
class HeldParts:
    """What windows hold of an object, over what the best window of that size would hold.

    Attributes:
        most: ``(B,)``, in [0, 1], of the most attended window.
        random: The mean of all windows.
        least: Of the least attended window.
    """

    most: Tensor
    random: Tensor
    least: Tensor


def held_by_windows(attention: Tensor, content: Tensor, region: Region) -> HeldParts:
    """How well the attention finds an object: the premise of SMMix, which cuts the most attended window of its source.

    Args:
        attention (Tensor): ``(B, h, w)``.
        content (Tensor): The object's part of each token ``(B, h, w)``, in no image all zero.
        region (tuple[int, int]): Window ``(rows, cols)`` in tokens.
    """
    held = functional.window_sums(content, region)
    held = held / held.amax(dim=(1, 2), keepdim=True)
    batch = torch.arange(len(held), device=held.device)
    most, least = (find(attention, region).unbind(1) for find in (functional.max_windows, functional.min_windows))
    return HeldParts(most=held[(batch, *most)], random=held.mean(dim=(1, 2)), least=held[(batch, *least)])


def pasted_parts(method: MixingMethod, mixed: MixedBatch, count: int, streams: Streams) -> Tensor:
    """Where the sources were pasted.

    mmpretrain's augmentations do not say. They are repeated on images that hold their own number in every pixel.

    Args:
        method (MixingMethod): The method that mixed.
        mixed (MixedBatch): The mixed images.
        count (int): ``B``, the number of mixed images.
        streams (Streams): As the method got them, from the start.

    Returns:
        Tensor: The source's part of each pixel, ``(B, H, W)`` float32, in [0, 1]. All 0 where no region was pasted, or
        mmpretrain mixed an image with itself.

    Raises:
        ValueError: If the method blends whole images.
    """
    size = tuple(mixed.images.shape[-2:])
    device = mixed.images.device
    if mixed.source_mask is not None:
        mask = functional.pixel_mask(mixed.source_mask, size)
    elif mixed.source_box is not None:
        mask = functional.box_mask(mixed.source_box, size, device=device)
    elif isinstance(method, StockMixing):
        mask = _probe(method, count, size, streams, device)
    else:
        mask = torch.zeros(size, device=device)
    return mask.float().expand(count, *size)


def _probe(method: StockMixing, count: int, size: tuple[int, int], streams: Streams, device: torch.device) -> Tensor:
    numbers = torch.arange(count, device=device, dtype=torch.float32).view(-1, 1, 1, 1)
    mixed = method(numbers.repeat(1, 1, *size), numbers.view(-1, 1), (), streams).images
    # Not exactly, since resizing computes.
    if not torch.allclose(mixed, mixed.round(), atol=1e-3):
        raise ValueError(f'{method.extra_repr()} blends whole images, so there is no pasted region')
    return (mixed.round() != numbers).squeeze(1)
