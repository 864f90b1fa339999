"""Position embeddings of checkpoints that were trained at another input size."""

from typing import Any

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor, nn

from smmix_mm.compat import is_exporting

# Key in the metadata of a module's state_dict, which checkpoints keep together with its version.
GRIDS = 'pos_grids'


def note_grids(module: nn.Module, state_dict: dict[str, Tensor], prefix: str, local_metadata: dict) -> None:  # noqa: ARG001
    """Hook of ``state_dict()`` that notes the grids of a backbone's position embeddings, ``module.pos_grids``."""
    local_metadata[GRIDS] = [tuple(grid) for grid in module.pos_grids]


def noted_grid(local_metadata: dict[str, Any], index: int) -> tuple[int, int] | None:
    """The grid that :func:`note_grids` noted for a position embedding; None in other checkpoints.

    Args:
        local_metadata (dict): As load hooks receive it.
        index (int): Index of the position embedding in the backbone.
    """
    grids = local_metadata.get(GRIDS)
    return None if grids is None else tuple(grids[index])


def is_traced() -> bool:
    """Whether a program is being recorded for images of other sizes: by ``torch.jit.trace`` or ``torch.export``."""
    return torch.jit.is_tracing() or is_exporting()


def resize_to_grid(
    embed: Tensor, pos_grid: tuple[int, int], grid: tuple[int, int], mode: str, num_extra_tokens: int = 0
) -> Tensor:
    """Resizes a position embedding to the grid of the images.

    Args:
        embed (Tensor): ``(1, E + N, C)``, the ``E`` extra tokens first.
        pos_grid (tuple[int, int]): ``(h, w)`` of ``embed``.
        grid (tuple[int, int]): ``(h, w)`` of the images.
        mode (str): Of the interpolation, such as ``'bicubic'``.
        num_extra_tokens (int): ``E``. Defaults to 0.

    Returns:
        Tensor: ``(1, E + h * w, C)``.
    """
    if not is_traced():
        return resize_pos_embed(embed, pos_grid, grid, mode, num_extra_tokens)
    # mmpretrain compares the grids, and a trace keeps the result for all sizes. At the same size this changes nothing.
    extra, tokens = embed[:, :num_extra_tokens], embed[:, num_extra_tokens:]
    maps = tokens.transpose(1, 2).unflatten(2, pos_grid).float()
    resized = F.interpolate(maps, grid, mode=mode, align_corners=False).to(embed.dtype)
    return torch.cat((extra, resized.flatten(2).transpose(1, 2)), dim=1)


def fit_pos_embed(
    found: Tensor,
    grid: tuple[int, int],
    name: str,
    mode: str,
    num_extra_tokens: int = 0,
    noted: tuple[int, int] | None = None,
) -> Tensor:
    """Resizes a position embedding to a grid, and logs it.

    Args:
        found (Tensor): ``(1, E + N, C)``, the ``E`` extra tokens first.
        grid (tuple[int, int]): ``(h, w)`` of the model.
        name (str): Named in the log.
        mode (str): Of the interpolation, such as ``'bicubic'``.
        num_extra_tokens (int): ``E``. Defaults to 0.
        noted (tuple[int, int], optional): The grid of ``found``, if its file holds it. Defaults to None: a square grid
            is assumed, as all published checkpoints have.

    Returns:
        Tensor: ``(1, E + h * w, C)``, or ``found`` if it has that grid.

    Raises:
        ValueError: If the grid of ``found`` cannot be known.
    """
    num_tokens = found.shape[1] - num_extra_tokens
    rows, cols = grid
    if noted is None:
        side = int(max(num_tokens, 0) ** 0.5)
        # The same number of tokens can come from different grids if one of them is not square.
        if not is_square(num_tokens) or (num_tokens == rows * cols and rows != cols):
            raise ValueError(
                f'{name} has {num_tokens} tokens, but its file does not give their grid; this model has a grid of '
                f'{rows} x {cols}, from its img_size. Only square grids can be inferred from the number of tokens. If '
                f'the checkpoint was trained with another img_size, set that one. If not, write the grid into the '
                f"file: state_dict._metadata['{name.rpartition('.')[0]}'] = dict({GRIDS}=[...])"
            )
        noted = side, side
    if noted == grid or noted[0] * noted[1] != num_tokens:
        # torch refuses the wrong number of tokens.
        return found
    print_log(f'{name}: resized from a grid of {noted[0]} x {noted[1]} to {rows} x {cols}', logger='current')
    return resize_pos_embed(found, noted, grid, mode, num_extra_tokens)


def is_square(number: int) -> bool:
    return number > 0 and int(number**0.5) ** 2 == number
