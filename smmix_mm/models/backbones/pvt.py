"""Pyramid Vision Transformer, one backbone for classification, detection and segmentation.

`Pyramid Vision Transformer: A Versatile Backbone for Dense Prediction without Convolutions
<https://arxiv.org/abs/2102.12122>`_. Parameter names are those of the official release, so its weights load.
"""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import DropPath
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from smmix_mm.compat import is_compiling
from smmix_mm.models.initialization import init_transformer
from smmix_mm.models.pretrained import strict_init_cfg
from smmix_mm.registry import MODELS

from .mlp import MLP
from .pos_embed import fit_pos_embed, is_square, is_traced, note_grids, noted_grid, resize_to_grid

# Norms of the patch embeddings and after the spatial reduction have torch's default instead, as in the official code.
EPS = 1e-6
PATCH_EPS = 1e-5

NUM_STAGES = 4

# Number of grids whose resized position embeddings are kept in evaluation: enough for a few image sizes, such as the
# buckets of a detector's test images.
MAX_RESIZED = 4


class PVTAttention(nn.Module):
    """Attention whose keys and values come from a spatially reduced grid.

    Args:
        dims (int): Channels.
        num_heads (int): Heads; divides ``dims``.
        sr_ratio (int): Side of the squares of tokens that are merged into one key and value.
        qkv_bias (bool): Bias of the query, key and value projections.
        drop_rate (float): Dropout after the output projection.
    """

    def __init__(self, dims: int, num_heads: int, sr_ratio: int, qkv_bias: bool, drop_rate: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(dims, dims, bias=qkv_bias)
        self.kv = nn.Linear(dims, dims * 2, bias=qkv_bias)
        self.proj = nn.Linear(dims, dims)
        self.proj_drop = nn.Dropout(drop_rate)
        self.sr_ratio = sr_ratio
        if sr_ratio > 1:
            self.sr = nn.Conv2d(dims, dims, sr_ratio, stride=sr_ratio)
            self.norm = nn.LayerNorm(dims, eps=PATCH_EPS)

    def split_heads(self, query: Tensor, key_value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(B, N, C)`` and ``(B, M, 2C)`` to queries, keys and values ``(B, heads, N or M, C / heads)``."""
        query = query.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        key, value = key_value.unflatten(2, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return query, key, value

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        reduced = x
        if self.sr_ratio > 1:
            reduced = self.sr(x.transpose(1, 2).unflatten(2, grid)).flatten(2).transpose(1, 2)
            reduced = self.norm(reduced)
        attended = F.scaled_dot_product_attention(*self.split_heads(self.q(x), self.kv(reduced)))
        return self.proj_drop(self.proj(attended.transpose(1, 2).flatten(2)))


class PVTBlock(nn.Module):
    """Attention and perceptron, each after a norm and each dropped per sample with ``drop_path_rate``."""

    def __init__(
        self,
        dims: int,
        num_heads: int,
        mlp_ratio: float,
        sr_ratio: int,
        qkv_bias: bool,
        drop_rate: float,
        drop_path_rate: float,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dims, eps=EPS)
        self.attn = PVTAttention(dims, num_heads, sr_ratio, qkv_bias, drop_rate)
        self.norm2 = nn.LayerNorm(dims, eps=EPS)
        self.mlp = MLP(dims, int(dims * mlp_ratio), drop_rate)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), grid))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class PVTPatchEmbed(nn.Module):
    """Projects squares of pixels, or of the last stage's tokens, to tokens."""

    def __init__(self, in_channels: int, dims: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dims, stride, stride=stride)
        self.norm = nn.LayerNorm(dims, eps=PATCH_EPS)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        x = self.proj(x)
        grid = (x.shape[2], x.shape[3])
        return self.norm(x.flatten(2).transpose(1, 2)), grid


@MODELS.register_module()
class PVT(BaseModule):
    """Pyramid Vision Transformer.

    Takes images of any size that gives every stage at least one token and every spatial reduction a whole square.
    Position embeddings are interpolated bilinearly, and pixels beyond the last whole patch are left out, both as in the
    official code. Checkpoints of another input size load with resized position embeddings. In evaluation without
    gradients the interpolated ones of the last few sizes are kept until the next ``train()``, ``eval()`` or
    ``load_state_dict()``.

    Args:
        arch (str | dict): ``'tiny'``, ``'small'``, ``'medium'``, ``'large'``, or a dict of lists of four,
            ``embed_dims, num_heads, mlp_ratios, depths, sr_ratios`` and optionally ``strides`` of the patch embeddings
            (default ``[4, 2, 2, 2]``; smaller ones give small images a larger last grid). Defaults to ``'tiny'``.
        img_size (int | tuple[int, int]): Height and width of the position embeddings in pixels. Defaults to 224.
        in_channels (int): Channels of the images. Defaults to 3.
        out_type (str): ``'cls_token'`` returns a tuple of one tensor ``(B, C)``, the class token after the final
            norm; ``'featmap'`` returns the maps ``(B, C_i, h_i, w_i)`` of the stages in ``out_indices``, without class
            token and final norm, which are then not built and not loaded. Defaults to ``'cls_token'``.
        out_indices (Sequence[int], optional): Stages whose maps ``'featmap'`` returns. Defaults to all four.
        qkv_bias (bool): Bias of the query, key and value projections. Defaults to True.
        drop_rate (float): Dropout after position embeddings and inside the blocks, in [0, 1). Defaults to 0.
        drop_path_rate (float): Stochastic depth of the last block, in [0, 1); it rises linearly from 0 in the first.
            Defaults to 0.
        frozen_stages (int): Number of stages, from the first, that are not trained and stay in evaluation mode, except
            for the dropout after position embeddings; -1 and 0 freeze none. Defaults to -1.
        with_cp (bool): Gradient checkpointing: recompute each block in the backward pass to save memory. Defaults to
            False.
        init_cfg (dict | list[dict], optional): Without it, the published initialisation. ``type='Pretrained'`` takes
            ``checkpoint`` and optionally ``prefix``, and strictly loads checkpoints of the backbone or of classifiers,
            ours and the official ones: see :func:`smmix_mm.models.load_backbone`. Defaults to None.

    Raises:
        ValueError: If a setting is outside its range.
    """

    arch_zoo = {
        name: dict(
            embed_dims=[64, 128, 320, 512],
            num_heads=[1, 2, 5, 8],
            mlp_ratios=[8, 8, 4, 4],
            depths=depths,
            sr_ratios=[8, 4, 2, 1],
            strides=[4, 2, 2, 2],
        )
        for name, depths in dict(
            tiny=[2, 2, 2, 2], small=[3, 4, 6, 3], medium=[3, 4, 18, 3], large=[3, 8, 27, 3]
        ).items()
    }

    def __init__(
        self,
        arch: str | Mapping[str, Sequence[int]] = 'tiny',
        img_size: int | tuple[int, int] = 224,
        in_channels: int = 3,
        out_type: str = 'cls_token',
        out_indices: Sequence[int] | None = None,
        qkv_bias: bool = True,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        settings = _parse_arch(arch, self.arch_zoo)
        if out_type not in ('cls_token', 'featmap'):
            raise ValueError(f"out_type of PVT has to be 'cls_token' or 'featmap', but got {out_type!r}")
        if out_type == 'cls_token' and out_indices is not None:
            raise ValueError(f"out_indices={out_indices} of PVT needs out_type='featmap'")
        if out_type == 'cls_token' and settings['sr_ratios'][-1] != 1:
            raise ValueError(
                f"out_type='cls_token' of PVT needs sr_ratios that end in 1, because a class token cannot be spatially "
                f'reduced, but got {settings["sr_ratios"]}'
            )
        out_indices = tuple(range(NUM_STAGES)) if out_indices is None else tuple(out_indices)
        if not out_indices or not set(out_indices) <= set(range(NUM_STAGES)):
            raise ValueError(f'out_indices of PVT have to be between 0 and {NUM_STAGES - 1}, but got {out_indices}')
        if not -1 <= frozen_stages <= NUM_STAGES:
            raise ValueError(f'frozen_stages of PVT has to be between -1 and {NUM_STAGES}, but got {frozen_stages}')
        for name, rate in (('drop_rate', drop_rate), ('drop_path_rate', drop_path_rate)):
            if not 0 <= rate < 1:
                raise ValueError(f'{name} of PVT has to be in [0, 1), but got {rate}')

        self.embed_dims = settings['embed_dims']
        self.sr_ratios = settings['sr_ratios']
        self.strides = settings['strides']
        self.out_type = out_type
        self.out_indices = out_indices
        self.frozen_stages = frozen_stages
        self.with_cp = with_cp
        self.pos_drop = nn.Dropout(drop_rate)
        img_size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
        self.pos_grids = self.grids(img_size)
        # Resized position embeddings by stage and grid in evaluation; None in training.
        self._resized: list[dict] | None = None

        # Plain numbers: torch.compile fails on mmcv's DropPath if it holds a NumPy or tensor scalar.
        drop_paths = iter(torch.linspace(0, drop_path_rate, sum(settings['depths'])).tolist())
        for stage, dims in enumerate(self.embed_dims):
            previous_dims = self.embed_dims[stage - 1] if stage else in_channels
            blocks = nn.ModuleList(
                PVTBlock(
                    dims,
                    settings['num_heads'][stage],
                    settings['mlp_ratios'][stage],
                    settings['sr_ratios'][stage],
                    qkv_bias,
                    drop_rate,
                    next(drop_paths),
                )
                for _ in range(settings['depths'][stage])
            )
            rows, cols = self.pos_grids[stage]
            num_tokens = rows * cols + int(self._has_cls_token(stage))
            setattr(self, f'patch_embed{stage + 1}', PVTPatchEmbed(previous_dims, dims, self.strides[stage]))
            setattr(self, f'pos_embed{stage + 1}', nn.Parameter(torch.zeros(1, num_tokens, dims)))
            setattr(self, f'block{stage + 1}', blocks)
        if out_type == 'cls_token':
            self.cls_token = nn.Parameter(torch.zeros(1, 1, self.embed_dims[-1]))
            self.norm = nn.LayerNorm(self.embed_dims[-1], eps=EPS)
        self._register_state_dict_hook(note_grids)
        self._register_load_state_dict_pre_hook(self._fit_checkpoint)
        self._freeze_stages()

    def init_weights(self) -> None:
        """Applies the published initialisation, then ``init_cfg``, with pretrained weights last and loaded strictly."""
        if not self.is_init:
            init_transformer(self)
        with strict_init_cfg(self):
            super().init_weights()

    def grids(self, img_size: tuple[int, int]) -> list[tuple[int, int]]:
        """Token grids ``(h, w)`` of the four stages for images of a size.

        Raises:
            ValueError: If a stage would have no token, or fewer per side than its spatial reduction merges.
        """
        grids = []
        rows, cols = img_size
        for stride in self.strides:
            rows, cols = rows // stride, cols // stride
            grids.append((rows, cols))
        if not (rows and cols):
            smallest = math.prod(self.strides)
            raise ValueError(
                f'images have to measure at least {smallest} x {smallest} pixels for strides {self.strides} of PVT, '
                f'but got {img_size[0]} x {img_size[1]}'
            )
        # No zip(strict=True): torch 2.1 cannot compile it.
        for stage, grid in enumerate(grids, 1):
            ratio = self.sr_ratios[stage - 1]
            if any(side < ratio for side in grid):
                raise ValueError(
                    f'sr_ratios {self.sr_ratios} of PVT need at least {ratio} tokens a side in stage {stage}, but '
                    f'images of {img_size[0]} x {img_size[1]} pixels give {grid[0]} x {grid[1]}'
                )
        return grids

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Returns the depth of a parameter, for the layer-wise learning rates of mmpretrain.

        The blocks count from 1 through all stages. The first embeddings have depth 0, those of a later stage and the
        class token that of the block that they lead to, and the final norm the last depth.

        Args:
            param_name (str): Its name in the whole model.
            prefix (str): Beginning of the names of the backbone. Defaults to ``''``. Other names, such as the head's,
                have the last depth.

        Returns:
            tuple[int, int]: The depth, and the number of depths: the number of blocks and two more.
        """
        depths = [len(getattr(self, f'block{stage + 1}')) for stage in range(NUM_STAGES)]
        num_depths = sum(depths) + 2
        part, *rest = param_name.removeprefix(prefix).split('.')
        if not param_name.startswith(prefix) or part == 'norm':
            return num_depths - 1, num_depths
        if part in ('patch_embed1', 'pos_embed1'):
            return 0, num_depths
        stage = NUM_STAGES if part == 'cls_token' else int(part[-1])
        index = int(rest[0]) if part.startswith('block') else 0
        return sum(depths[: stage - 1]) + index + 1, num_depths

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Runs the backbone.

        Args:
            images (Tensor): ``(B, in_channels, H, W)``.

        Returns:
            tuple[Tensor, ...]: See ``out_type``.
        """
        self.grids(images.shape[-2:])
        maps = {}
        x = images
        for stage in range(NUM_STAGES):
            x, grid = getattr(self, f'patch_embed{stage + 1}')(x)
            if self._has_cls_token(stage):
                x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
            x = self.pos_drop(x + self._pos_embed(stage, grid))
            for block in getattr(self, f'block{stage + 1}'):
                x = self._run_block(block, x, grid)
            if not self._has_cls_token(stage):
                # A view with the channels last, so that the next patch embedding's gradient has the layout of tokens.
                # The map is made first, so its own gradient is added last, and the sum keeps that layout.
                x = x.transpose(1, 2).unflatten(2, grid)
                if self.out_type == 'featmap' and stage in self.out_indices:
                    maps[stage] = x.contiguous()
        if self.out_type == 'cls_token':
            return (self.norm(x)[:, 0],)
        return tuple(maps[index] for index in self.out_indices)

    def train(self, mode: bool = True) -> 'PVT':
        super().train(mode)
        # eval() empties it too: averaged weights are swapped in before, which does not change version counters.
        self._resized = None if mode else _nothing_resized()
        for module in self._frozen_modules():
            module.eval()
        return self

    def __getstate__(self) -> dict:
        """Leaves values that can be recomputed out of copies and pickles."""
        return {**self.__dict__, '_resized': None if self._resized is None else _nothing_resized()}

    def _run_block(self, block: PVTBlock, x: Tensor, grid: tuple[int, int]) -> Tensor:
        if self.with_cp and x.requires_grad:
            return checkpoint(block, x, grid, use_reentrant=False)
        return block(x, grid)

    def _has_cls_token(self, stage: int) -> bool:
        return self.out_type == 'cls_token' and stage == NUM_STAGES - 1

    def _pos_embed(self, stage: int, grid: tuple[int, int]) -> Tensor:
        """The position embedding, interpolated if needed: once per grid in evaluation, in every step in training."""
        embed = getattr(self, f'pos_embed{stage + 1}')
        if is_traced() or grid == self.pos_grids[stage] or not self._keeps_resized(embed):
            return self._resize(stage, grid)
        kept, state = self._resized[stage], (embed._version, embed.device, embed.dtype)
        source, found_state, resized = kept.pop(grid, (None, None, None))
        if source is not embed or found_state != state:
            resized = self._resize(stage, grid)
        kept[grid] = (embed, state, resized)
        if len(kept) > MAX_RESIZED:
            del kept[next(iter(kept))]
        return resized

    def _keeps_resized(self, embed: Tensor) -> bool:
        if is_compiling() or torch.is_grad_enabled():
            return False
        # `training` alone is not enough, since a motivation pass turns it off within a training step.
        return self._resized is not None and not self.training and not embed.is_inference()

    def _resize(self, stage: int, grid: tuple[int, int]) -> Tensor:
        embed = getattr(self, f'pos_embed{stage + 1}')
        return resize_to_grid(embed, self.pos_grids[stage], grid, 'bilinear', int(self._has_cls_token(stage)))

    def _frozen_modules(self) -> list[nn.Module]:
        frozen = [
            getattr(self, f'{part}{stage + 1}')
            for stage in range(max(self.frozen_stages, 0))
            for part in ('patch_embed', 'block')
        ]
        if self.frozen_stages == NUM_STAGES and self.out_type == 'cls_token':
            frozen.append(self.norm)
        return frozen

    def _freeze_stages(self) -> None:
        for module in self._frozen_modules():
            module.requires_grad_(False).eval()
        for stage in range(max(self.frozen_stages, 0)):
            getattr(self, f'pos_embed{stage + 1}').requires_grad_(False)
        if self.frozen_stages == NUM_STAGES and self.out_type == 'cls_token':
            self.cls_token.requires_grad_(False)

    def _fit_checkpoint(self, state_dict: dict[str, Tensor], prefix: str, local_metadata: dict, *args: object) -> None:
        """Drops what this ``out_type`` does not build and resizes position embeddings of another input size."""
        if self._resized is not None:
            self._resized = _nothing_resized()
        if self.out_type == 'featmap':
            for name in ('cls_token', 'norm.weight', 'norm.bias'):
                state_dict.pop(prefix + name, None)
        for stage, grid in enumerate(self.pos_grids):
            name = f'{prefix}pos_embed{stage + 1}'
            if name not in state_dict:
                continue
            found = state_dict[name]
            if found.ndim != 3 or len(found) != 1:
                continue
            noted = noted_grid(local_metadata, stage)
            num_extra_tokens = int(self._has_cls_token(stage))
            if stage == NUM_STAGES - 1 and not num_extra_tokens:
                # Drop the embedding of the class token, which comes first.
                has_extra = is_square(found.shape[1] - 1) if noted is None else found.shape[1] > math.prod(noted)
                found = found[:, int(has_extra) :]
            state_dict[name] = fit_pos_embed(found, grid, name, 'bilinear', num_extra_tokens, noted)


def _nothing_resized() -> list[dict]:
    return [{} for _ in range(NUM_STAGES)]


def _parse_arch(
    arch: str | Mapping[str, Sequence[int]], zoo: Mapping[str, Mapping[str, Sequence[int]]]
) -> dict[str, list]:
    if isinstance(arch, str):
        if arch not in zoo:
            raise ValueError(f'arch of PVT has to be one of {sorted(zoo)} or a dict, but got {arch!r}')
        arch = zoo[arch]
    settings = {'strides': [4, 2, 2, 2], **arch}
    if set(settings) != set(zoo['tiny']):
        raise ValueError(f'arch of PVT needs the keys {sorted(zoo["tiny"])}, but got {sorted(arch)}')
    for key, values in settings.items():
        if len(values) != NUM_STAGES or any(value <= 0 for value in values):
            raise ValueError(f'{key} of a PVT arch has to be {NUM_STAGES} positive numbers, but got {values}')
    for dims, heads in zip(settings['embed_dims'], settings['num_heads'], strict=True):
        if dims % heads:
            raise ValueError(f'embed_dims of a PVT arch have to be multiples of num_heads, but got {dims} and {heads}')
    return {key: list(values) for key, values in settings.items()}
