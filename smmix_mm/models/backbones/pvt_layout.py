"""The settings of a PVT, read from the shapes in its checkpoint."""

from collections.abc import Mapping

import torch
from torch import Tensor

from .pos_embed import is_square
from .pvt import NUM_STAGES


def settings_of(weights: Mapping[str, Tensor]) -> dict:
    """Infers the settings of a PVT from the shapes in its checkpoint.

    Args:
        weights (Mapping[str, Tensor]): By the names of :class:`PVT`.

    Returns:
        dict: ``arch``, ``in_channels``, ``out_type`` and ``qkv_bias`` of :class:`PVT`, and ``img_size`` if the grid is
        square. Grids that are not square and the number of heads, set to 1 here, cannot be inferred.

    Raises:
        ValueError: If a tensor that they are read from is missing or of an unexpected shape.
    """

    def measure(name: str, ndim: int) -> torch.Size:
        if name not in weights:
            raise ValueError(f'{name} of PVT is missing')
        if weights[name].ndim != ndim:
            raise ValueError(f'{name} of PVT needs {ndim} dimensions, but has the shape {tuple(weights[name].shape)}')
        return weights[name].shape

    stages = range(1, NUM_STAGES + 1)
    patches = [measure(f'patch_embed{stage}.proj.weight', 4) for stage in stages]
    hidden = [measure(f'block{stage}.0.mlp.fc1.weight', 2) for stage in stages]
    blocks = [[name.split('.') for name in weights if name.startswith(f'block{stage}.')] for stage in stages]
    reductions = [['.'.join(steps) for steps in names if steps[2:] == ['attn', 'sr', 'weight']] for names in blocks]
    strides = [patch[-1] for patch in patches]
    settings = dict(
        arch=dict(
            embed_dims=[patch[0] for patch in patches],
            num_heads=[1] * NUM_STAGES,
            mlp_ratios=[rows / cols for rows, cols in hidden],
            depths=[len({steps[1] for steps in names}) for names in blocks],
            sr_ratios=[measure(names[0], 4)[-1] if names else 1 for names in reductions],
            strides=strides,
        ),
        in_channels=patches[0][1],
        out_type='featmap' if {'cls_token', 'norm.weight', 'norm.bias'}.isdisjoint(weights) else 'cls_token',
        qkv_bias=any(name.endswith(('.attn.q.bias', '.attn.kv.bias')) for name in weights),
    )
    num_tokens = measure('pos_embed1', 3)[1]
    if is_square(num_tokens):
        settings['img_size'] = int(num_tokens**0.5) * strides[0]
    return settings
