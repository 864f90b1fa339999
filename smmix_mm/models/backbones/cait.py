"""Class-Attention in Image Transformers.

`Going deeper with Image Transformers <https://arxiv.org/abs/2103.17239>`_. Parameter names are those of the official
release, so its weights load.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import DropPath
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from smmix_mm.models.initialization import init_transformer
from smmix_mm.models.pretrained import strict_init_cfg
from smmix_mm.registry import MODELS

from .mlp import MLP
from .pos_embed import fit_pos_embed, note_grids, noted_grid, resize_to_grid

EPS = 1e-6


class TalkingHeadsAttention(nn.Module):
    """Self-attention whose heads are mixed linearly before the softmax and after it (section 4 of the paper).

    Args:
        dims (int): Channels.
        num_heads (int): Heads; divides ``dims``.
        qkv_bias (bool): Bias of the query, key and value projections.
        drop_rate (float): Dropout after the output projection.
    """

    def __init__(self, dims: int, num_heads: int, qkv_bias: bool, drop_rate: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = (dims // num_heads) ** -0.5
        self.qkv = nn.Linear(dims, dims * 3, bias=qkv_bias)
        self.proj_l = nn.Linear(num_heads, num_heads)
        self.softmax = nn.Softmax(dim=-1)
        self.proj_w = nn.Linear(num_heads, num_heads)
        self.proj = nn.Linear(dims, dims)
        self.proj_drop = nn.Dropout(drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        # One copy merges batch and heads, so that no product has to copy its factors again.
        qkv = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).flatten(1, 2)
        query, key, value = qkv.unbind(0)
        scores = torch.bmm(query * self.scale, key.transpose(1, 2)).unflatten(0, (-1, self.num_heads))
        weights = _mix_heads(self.proj_w, self.softmax(_mix_heads(self.proj_l, scores)))
        attended = torch.bmm(weights.flatten(0, 1), value).unflatten(0, (-1, self.num_heads))
        return self.proj_drop(self.proj(attended.transpose(1, 2).flatten(2)))


class ClassAttention(nn.Module):
    """Attention of the class token alone, to itself and to the image tokens.

    Args:
        dims (int): Channels.
        num_heads (int): Heads; divides ``dims``.
        qkv_bias (bool): Bias of the query, key and value projections.
    """

    def __init__(self, dims: int, num_heads: int, qkv_bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(dims, dims, bias=qkv_bias)
        self.k = nn.Linear(dims, dims, bias=qkv_bias)
        self.v = nn.Linear(dims, dims, bias=qkv_bias)
        self.proj = nn.Linear(dims, dims)

    def split_heads(self, projected: Tensor) -> Tensor:
        """Queries, keys or values ``(B, N, C)`` to ``(B, heads, N, C / heads)``."""
        return projected.unflatten(2, (self.num_heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        projected = (self.q(x[:, :1]), self.k(x), self.v(x))
        attended = F.scaled_dot_product_attention(*(self.split_heads(part) for part in projected))
        return self.proj(attended.transpose(1, 2).flatten(2))


class LayerScaleBlock(nn.Module):
    """Norms, perceptron and layer scale of both kinds of block.

    Args:
        attention (nn.Module): Self-attention or class attention.
        mlp (MLP): The perceptron.
        dims (int): Channels.
        init_value (float): Initial value of the layer scale.
    """

    def __init__(self, attention: nn.Module, mlp: MLP, dims: int, init_value: float) -> None:
        super().__init__()
        self.init_value = init_value
        self.gamma_1 = nn.Parameter(torch.empty(dims))
        self.gamma_2 = nn.Parameter(torch.empty(dims))
        self.norm1 = nn.LayerNorm(dims, eps=EPS)
        self.attn = attention
        self.norm2 = nn.LayerNorm(dims, eps=EPS)
        self.mlp = mlp
        self.reset_layer_scale()

    def reset_layer_scale(self) -> None:
        """Sets the layer scale to its initial value."""
        for gamma in (self.gamma_1, self.gamma_2):
            nn.init.constant_(gamma, self.init_value)


class CaiTBlock(LayerScaleBlock):
    """Self-attention among image tokens, and a perceptron, each dropped per sample with ``drop_path_rate``."""

    def __init__(
        self,
        dims: int,
        num_heads: int,
        mlp_ratio: float,
        qkv_bias: bool,
        init_value: float,
        drop_rate: float,
        drop_path_rate: float,
    ) -> None:
        attention = TalkingHeadsAttention(dims, num_heads, qkv_bias, drop_rate)
        super().__init__(attention, MLP(dims, int(dims * mlp_ratio), drop_rate), dims, init_value)
        # A plain number: torch.compile fails on mmcv's DropPath if it holds a NumPy or tensor scalar.
        self.drop_path = DropPath(float(drop_path_rate))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.addcmul(x, self.gamma_1, self.drop_path(self.attn(self.norm1(x))))
        return torch.addcmul(x, self.gamma_2, self.drop_path(self.mlp(self.norm2(x))))


class CaiTClassBlock(LayerScaleBlock):
    """Class attention, and a perceptron on the class token alone, without dropout as in the official code."""

    def __init__(self, dims: int, num_heads: int, mlp_ratio: float, qkv_bias: bool, init_value: float) -> None:
        attention = ClassAttention(dims, num_heads, qkv_bias)
        super().__init__(attention, MLP(dims, int(dims * mlp_ratio)), dims, init_value)

    def forward(self, x: Tensor, cls_token: Tensor) -> Tensor:
        attended = self.attn(self.norm1(torch.cat([cls_token, x], dim=1)))
        cls_token = torch.addcmul(cls_token, self.gamma_1, attended)
        return torch.addcmul(cls_token, self.gamma_2, self.mlp(self.norm2(cls_token)))


class CaiTPatchEmbed(nn.Module):
    """Projects squares of pixels to tokens."""

    def __init__(self, in_channels: int, dims: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dims, patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        x = self.proj(images)
        grid = (x.shape[2], x.shape[3])
        # Contiguous, because no norm follows: all blocks would add to tokens with transposed strides.
        return x.flatten(2).transpose(1, 2).contiguous(), grid


@MODELS.register_module()
class CaiT(BaseModule):
    """Class-Attention in Image Transformers.

    Self-attention blocks for the image tokens, whose heads are mixed before and after the softmax, are followed by
    class-attention blocks, in which a class token attends to them. All have layer scale. Position embeddings are
    interpolated bicubically for images of other sizes, and resized if a checkpoint is of another input size.

    The image attention that adapters read is the output of the softmax in the last self-attention block, before the
    heads are mixed again (``proj_w``). The class attention is that of the last class-attention block.

    Args:
        arch (str | dict): ``'xxs24'``, ``'xxs36'``, or a dict of ``embed_dims, depth, num_heads`` and optionally
            ``mlp_ratio`` (default 4) and ``class_depth``, the number of class-attention blocks (default 2). Defaults
            to ``'xxs24'``.
        img_size (int | tuple[int, int]): Height and width of the position embeddings in pixels, multiples of
            ``patch_size``. Defaults to 224.
        patch_size (int): Side of a patch in pixels. Defaults to 16.
        in_channels (int): Channels of the images. Defaults to 3.
        qkv_bias (bool): Bias of the query, key and value projections. Defaults to True.
        drop_rate (float): Dropout after position embeddings and inside the self-attention blocks, in [0, 1). Defaults
            to 0.
        drop_path_rate (float): Stochastic depth of every self-attention block, in [0, 1); class-attention blocks have
            none. Defaults to 0.
        layer_scale_init_value (float): Initial value of the layer scale, above 0; published: 1e-5 for both archs.
            Defaults to 1e-5.
        out_type (str): ``'cls_token'`` returns a tuple of one tensor ``(B, C)``, the class token after the final norm;
            ``'featmap'`` returns the maps ``(B, C, h, w)`` of the image tokens after the self-attention blocks in
            ``out_indices``, and has no class token, class-attention blocks and final norm, for detection and
            segmentation. Its images may have any size: they are padded with zeros at the right and bottom. Defaults to
            ``'cls_token'``.
        out_indices (Sequence[int], optional): Self-attention blocks, from 0, whose maps ``'featmap'`` returns. Defaults
            to four at equal distances, the last block included.
        frozen_stages (int): Number of blocks, from the first, that are not trained and stay in evaluation mode, along
            with the embeddings before them. Class-attention blocks count on after the self-attention blocks, and with
            the last one the final norm is frozen too. -1 and 0 freeze none. Defaults to -1.
        with_cp (bool): Gradient checkpointing: recompute each block in the backward pass to save memory. Defaults to
            False.
        init_cfg (dict | list[dict], optional): Without it, the published initialisation. ``type='Pretrained'`` takes
            ``checkpoint`` and optionally ``prefix``, and strictly loads checkpoints of the backbone or of classifiers,
            ours and the official ones: see :func:`smmix_mm.models.load_backbone`. Defaults to None.

    Raises:
        ValueError: If a setting is outside its range.
    """

    arch_zoo = {
        name: dict(embed_dims=192, depth=depth, num_heads=4, mlp_ratio=4, class_depth=2)
        for name, depth in dict(xxs24=24, xxs36=36).items()
    }

    def __init__(
        self,
        arch: str | Mapping[str, float] = 'xxs24',
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        in_channels: int = 3,
        qkv_bias: bool = True,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 1e-5,
        out_type: str = 'cls_token',
        out_indices: Sequence[int] | None = None,
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        settings = _parse_arch(arch, self.arch_zoo)
        for name, rate in (('drop_rate', drop_rate), ('drop_path_rate', drop_path_rate)):
            if not 0 <= rate < 1:
                raise ValueError(f'{name} of CaiT has to be in [0, 1), but got {rate}')
        if not layer_scale_init_value > 0:
            raise ValueError(f'layer_scale_init_value of CaiT has to be above 0, but got {layer_scale_init_value}')
        if not isinstance(patch_size, int) or patch_size < 1:
            raise ValueError(f'patch_size of CaiT has to be a number of pixels above 0, but got {patch_size!r}')
        if out_type not in ('cls_token', 'featmap'):
            raise ValueError(f"out_type of CaiT has to be 'cls_token' or 'featmap', but got {out_type!r}")
        if out_type == 'cls_token' and out_indices is not None:
            raise ValueError(f"out_indices={out_indices} of CaiT needs out_type='featmap'")
        depth = settings['depth']
        if out_indices is None:
            out_indices = sorted({depth * part // 4 - 1 for part in range(1, 5)} - {-1})
        if not out_indices or not set(out_indices) <= set(range(depth)):
            raise ValueError(f'out_indices of CaiT have to be between 0 and {depth - 1}, but got {out_indices}')

        dims = settings['embed_dims']
        self.embed_dims = dims
        self.patch_size = patch_size
        self.out_type = out_type
        self.out_indices = tuple(out_indices)
        self.with_cp = with_cp
        self.pos_grid = self.grid((img_size, img_size) if isinstance(img_size, int) else tuple(img_size))
        self.patch_embed = CaiTPatchEmbed(in_channels, dims, patch_size)
        self.pos_embed = nn.Parameter(torch.zeros(1, self.pos_grid[0] * self.pos_grid[1], dims))
        self.pos_drop = nn.Dropout(drop_rate)
        common = (dims, settings['num_heads'], settings['mlp_ratio'], qkv_bias, layer_scale_init_value)
        self.blocks = nn.ModuleList(CaiTBlock(*common, drop_rate, drop_path_rate) for _ in range(depth))
        if out_type == 'cls_token':
            self.cls_token = nn.Parameter(torch.zeros(1, 1, dims))
            self.blocks_token_only = nn.ModuleList(CaiTClassBlock(*common) for _ in range(settings['class_depth']))
            self.norm = nn.LayerNorm(dims, eps=EPS)
        if not -1 <= frozen_stages <= len(self._all_blocks):
            raise ValueError(
                f'frozen_stages of CaiT has to be between -1 and {len(self._all_blocks)}, its number of blocks, but '
                f'got {frozen_stages}'
            )
        self.frozen_stages = frozen_stages
        self._register_state_dict_hook(note_grids)
        self._register_load_state_dict_pre_hook(self._fit_checkpoint)
        self._freeze_stages()

    @property
    def _all_blocks(self) -> list[LayerScaleBlock]:
        """Those of both kinds, in the order in which they run."""
        return [*self.blocks, *(self.blocks_token_only if self.out_type == 'cls_token' else ())]

    @property
    def pos_grids(self) -> list[tuple[int, int]]:
        """The grid of its only position embedding, in a list."""
        return [self.pos_grid]

    def init_weights(self) -> None:
        """Applies the published initialisation, then ``init_cfg``, with pretrained weights last and loaded strictly."""
        if not self.is_init:
            init_transformer(self)
            for block in self.modules():
                if isinstance(block, LayerScaleBlock):
                    block.reset_layer_scale()
        with strict_init_cfg(self):
            super().init_weights()

    def grid(self, img_size: tuple[int, int]) -> tuple[int, int]:
        """Token grid ``(h, w)`` for images of a size.

        Raises:
            ValueError: If the sides are not multiples of ``patch_size``.
        """
        height, width = img_size
        if height % self.patch_size or width % self.patch_size or not (height and width):
            raise ValueError(
                f'sides of the images have to be multiples of patch_size={self.patch_size} of CaiT, but got '
                f'{height} x {width}'
            )
        return height // self.patch_size, width // self.patch_size

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Returns the depth of a parameter, for the layer-wise learning rates of mmpretrain.

        The blocks count from 1, the class-attention blocks on after the self-attention blocks. Patch and position
        embeddings have depth 0, the class token that of the first class-attention block, and the final norm the last.

        Args:
            param_name (str): Its name in the whole model.
            prefix (str): Beginning of the names of the backbone. Defaults to ``''``. Other names, such as the head's,
                have the last depth.

        Returns:
            tuple[int, int]: The depth, and the number of depths: the number of blocks and two more.
        """
        num_depths = len(self._all_blocks) + 2
        part, *rest = param_name.removeprefix(prefix).split('.')
        if not param_name.startswith(prefix) or part == 'norm':
            return num_depths - 1, num_depths
        if part in ('patch_embed', 'pos_embed'):
            return 0, num_depths
        before = 0 if part == 'blocks' else len(self.blocks)
        return before + (0 if part == 'cls_token' else int(rest[0])) + 1, num_depths

    def train(self, mode: bool = True) -> 'CaiT':
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Runs the backbone.

        Args:
            images (Tensor): ``(B, in_channels, H, W)``; with ``out_type='cls_token'`` both sides multiples of
                ``patch_size``.

        Returns:
            tuple[Tensor, ...]: See ``out_type``.
        """
        if self.out_type == 'featmap':
            height, width = images.shape[-2:]
            images = F.pad(images, (0, -width % self.patch_size, 0, -height % self.patch_size))
        else:
            self.grid(images.shape[-2:])
        x, grid = self.patch_embed(images)
        x = self.pos_drop(x + resize_to_grid(self.pos_embed, self.pos_grid, grid, 'bicubic'))
        maps = []
        for index, block in enumerate(self.blocks):
            x = self._run_block(block, x)
            if index in self.out_indices:
                maps.append(x)
        if self.out_type == 'featmap':
            return tuple(x.transpose(1, 2).unflatten(2, grid).contiguous() for x in maps)
        cls_token = self.cls_token.expand(x.shape[0], -1, -1)
        for block in self.blocks_token_only:
            cls_token = self._run_block(block, x, cls_token)
        return (self.norm(cls_token)[:, 0],)

    def _run_block(self, block: LayerScaleBlock, *inputs: Tensor) -> Tensor:
        if self.with_cp and inputs[0].requires_grad:
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)

    def _frozen_modules(self) -> list[nn.Module]:
        if self.frozen_stages < 1:
            return []
        frozen = [self.patch_embed, self.pos_drop, *self._all_blocks[: self.frozen_stages]]
        if self.out_type == 'cls_token' and self.frozen_stages == len(self._all_blocks):
            frozen.append(self.norm)
        return frozen

    def _freeze_stages(self) -> None:
        for module in self._frozen_modules():
            module.requires_grad_(False).eval()
        if self.frozen_stages > 0:
            self.pos_embed.requires_grad_(False)
        if self.out_type == 'cls_token' and self.frozen_stages > len(self.blocks):
            self.cls_token.requires_grad_(False)

    def _fit_checkpoint(self, state_dict: dict[str, Tensor], prefix: str, local_metadata: dict, *args: object) -> None:
        """Drops what this ``out_type`` does not build and resizes position embeddings of another input size."""
        if self.out_type == 'featmap':
            for name in list(state_dict):
                if name.removeprefix(prefix).partition('.')[0] in ('cls_token', 'blocks_token_only', 'norm'):
                    del state_dict[name]
        name = f'{prefix}pos_embed'
        found = state_dict.get(name)
        if found is None or found.ndim != 3 or len(found) != 1:
            return
        state_dict[name] = fit_pos_embed(found, self.pos_grid, name, 'bicubic', noted=noted_grid(local_metadata, 0))


def _mix_heads(linear: nn.Linear, scores: Tensor) -> Tensor:
    """Applies a linear layer along the heads of ``(B, heads, N, N)`` without moving them in memory."""
    weight = linear.weight.expand(scores.shape[0], -1, -1)
    return torch.baddbmm(linear.bias.unsqueeze(1), weight, scores.flatten(2)).view_as(scores)


def _parse_arch(arch: str | Mapping[str, float], zoo: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    if isinstance(arch, str):
        if arch not in zoo:
            raise ValueError(f'arch of CaiT has to be one of {sorted(zoo)} or a dict, but got {arch!r}')
        arch = zoo[arch]
    settings = {'mlp_ratio': 4, 'class_depth': 2, **arch}
    if set(settings) != set(zoo['xxs24']):
        raise ValueError(f'arch of CaiT needs the keys {sorted(zoo["xxs24"])}, but got {sorted(arch)}')
    for key, value in settings.items():
        if value <= 0:
            raise ValueError(f'{key} of a CaiT arch has to be above 0, but got {value}')
    if settings['embed_dims'] % settings['num_heads']:
        raise ValueError(
            f'embed_dims of a CaiT arch has to be a multiple of num_heads, but got {settings["embed_dims"]} and '
            f'{settings["num_heads"]}'
        )
    return settings
