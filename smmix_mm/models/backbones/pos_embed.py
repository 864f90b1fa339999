"""Position embeddings of checkpoints that were trained at another input size."""

from mmengine.logging import print_log
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor


def fit_pos_embed(found: Tensor, grid: tuple[int, int], name: str, mode: str, num_extra_tokens: int = 0) -> Tensor:
    """Resizes a position embedding to a grid, and logs that it did.

    Only square grids can be told from the number of their tokens; others are left for torch to refuse.

    Args:
        found (Tensor): ``(1, E + N, C)``, the ``E`` extra tokens first.
        grid (tuple[int, int]): ``(h, w)`` of the model.
        name (str): Named in the log.
        mode (str): Of the interpolation, such as ``'bicubic'``.
        num_extra_tokens (int): ``E``. Defaults to 0.

    Returns:
        Tensor: ``(1, E + h * w, C)``, or ``found`` if its grid is that one or not square.
    """
    num_tokens = found.shape[1] - num_extra_tokens
    side = int(max(num_tokens, 0) ** 0.5)
    if not is_square(num_tokens) or (side, side) == grid:
        return found
    print_log(f'{name}: resized from a grid of {side} x {side} to {grid[0]} x {grid[1]}', logger='current')
    return resize_pos_embed(found, (side, side), grid, mode, num_extra_tokens)


def is_square(number: int) -> bool:
    return number > 0 and int(number**0.5) ** 2 == number
