"""Converts checkpoints from the authors' layouts to that of this project.

Supports PVT (official, and SMMix's with its `token_head`), CaiT (official) and DeiT in timm's naming (official, and
SMMix's), bare or under `model` or `state_dict`. Pickled code in the file is not executed. Fails on unknown keys and on
missing tensors.
"""

import argparse
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mmpretrain.models.backbones import VisionTransformer
from torch import Tensor, nn

from smmix_mm.checkpoint import check_fit, read_weights, write_weights
from smmix_mm.models import PVT, CaiT
from smmix_mm.models.backbones.pvt_layout import settings_of


def _count_blocks(weights: Mapping[str, Tensor], pattern: str) -> int:
    return 1 + max(int(match[1]) for match in (re.match(pattern, key) for key in weights) if match)


def _build_deit(weights: Mapping[str, Tensor]) -> VisionTransformer:
    """Builds the backbone that the shapes describe; they do not tell the number of heads."""
    patch = weights['patch_embed.proj.weight']
    arch = dict(
        embed_dims=patch.shape[0],
        num_layers=_count_blocks(weights, r'blocks\.(\d+)\.'),
        num_heads=1,
        feedforward_channels=weights['blocks.0.mlp.fc1.weight'].shape[0],
    )
    side = round((weights['pos_embed'].shape[1] - 1) ** 0.5) * patch.shape[-1]
    return VisionTransformer(arch, img_size=side, patch_size=patch.shape[-1], in_channels=patch.shape[1])


def _build_cait(weights: Mapping[str, Tensor]) -> CaiT:
    """Builds the backbone that the shapes describe; the mixing of the heads also tells their number."""
    patch = weights['patch_embed.proj.weight']
    hidden_dims, dims = weights['blocks.0.mlp.fc1.weight'].shape
    arch = dict(
        embed_dims=dims,
        depth=_count_blocks(weights, r'blocks\.(\d+)\.'),
        num_heads=len(weights['blocks.0.attn.proj_l.weight']),
        mlp_ratio=hidden_dims / dims,
        class_depth=_count_blocks(weights, r'blocks_token_only\.(\d+)\.'),
    )
    side = round(weights['pos_embed'].shape[1] ** 0.5) * patch.shape[-1]
    qkv_bias = 'blocks.0.attn.qkv.bias' in weights
    return CaiT(arch, img_size=side, patch_size=patch.shape[-1], in_channels=patch.shape[1], qkv_bias=qkv_bias)


@dataclass(frozen=True)
class Layout:
    """An official naming.

    Attributes:
        mark: A key that no later layout in the list has.
        patterns: Regular expressions of the keys, with their replacements.
        build: Builds the backbone for the converted weights.
    """

    mark: str
    patterns: dict[str, str]
    build: Callable[[Mapping[str, Tensor]], nn.Module]


LAYOUTS = {
    'PVT': Layout(
        mark='patch_embed1.proj.weight',
        patterns={
            r'(cls_token|pos_embed[1-4]|norm\.\w+|(?:patch_embed|block)[1-4]\..+)': r'backbone.\1',
            r'head\.(weight|bias)': r'head.fc.\1',
            r'token_head\.(weight|bias)': r'region_head.\1',
        },
        build=lambda weights: PVT(**settings_of(weights)),
    ),
    'CaiT': Layout(
        mark='blocks_token_only.0.attn.q.weight',
        patterns={
            r'(cls_token|pos_embed|norm\.\w+|(?:patch_embed|blocks|blocks_token_only)\..+)': r'backbone.\1',
            r'head\.(weight|bias)': r'head.fc.\1',
        },
        build=_build_cait,
    ),
    'DeiT': Layout(
        mark='blocks.0.attn.qkv.weight',
        patterns={
            r'(cls_token|pos_embed)': r'backbone.\1',
            r'patch_embed\.proj\.(weight|bias)': r'backbone.patch_embed.projection.\1',
            r'blocks\.(\d+)\.norm([12])\.(weight|bias)': r'backbone.layers.\1.ln\2.\3',
            r'blocks\.(\d+)\.attn\.(qkv|proj)\.(weight|bias)': r'backbone.layers.\1.attn.\2.\3',
            r'blocks\.(\d+)\.mlp\.fc1\.(weight|bias)': r'backbone.layers.\1.ffn.layers.0.0.\2',
            r'blocks\.(\d+)\.mlp\.fc2\.(weight|bias)': r'backbone.layers.\1.ffn.layers.1.\2',
            r'norm\.(weight|bias)': r'backbone.ln1.\1',
            r'head\.(weight|bias)': r'head.layers.head.\1',
            r'token_head\.(weight|bias)': r'region_head.\1',
        },
        build=_build_deit,
    ),
}


def convert(weights: Mapping[str, Tensor]) -> tuple[str, 'OrderedDict[str, str]']:
    """Finds a new name for every key.

    Args:
        weights (Mapping[str, Tensor]): Weights in an official layout.

    Returns:
        tuple[str, OrderedDict[str, str]]: Name of the layout, and a mapping from old to new names.

    Raises:
        ValueError: If the layout or a key is unknown, or a tensor is missing or of a shape that does not fit the
            others.
    """
    name = next((name for name, layout in LAYOUTS.items() if layout.mark in weights), None)
    if name is None:
        marks = ', '.join(f'{layout.mark} ({name})' for name, layout in LAYOUTS.items())
        raise ValueError(f'unknown layout: its keys contain none of {marks}; the first keys are {list(weights)[:8]}')
    layout = LAYOUTS[name]
    names = OrderedDict()
    for key in weights:
        new = [re.sub(pattern, new, key) for pattern, new in layout.patterns.items() if re.fullmatch(pattern, key)]
        names[key] = new[0] if new else None
    lost = [key for key, new in names.items() if new is None]
    if lost:
        raise ValueError(f'{len(lost)} keys are not part of the layout {name}: {", ".join(lost[:8])}')
    _check_complete(name, weights, names)
    return name, names


def _check_complete(name: str, weights: Mapping[str, Tensor], names: Mapping[str, str]) -> None:
    try:
        backbone = LAYOUTS[name].build(weights)
    except KeyError as error:
        raise ValueError(f'{error.args[0]} of {name} is missing') from error
    converted = {
        new.removeprefix('backbone.'): weights[old] for old, new in names.items() if new.startswith('backbone.')
    }
    check_fit(backbone, converted, name)
    for classifier in ('head', 'token_head'):
        if (f'{classifier}.weight' in weights) != (f'{classifier}.bias' in weights):
            raise ValueError(f'weight or bias of {classifier} of {name} is missing')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('src', type=Path, help='checkpoint in an official layout')
    parser.add_argument('dst', type=Path, help='file to write, in the layout of this project')
    args = parser.parse_args()
    try:
        weights = read_weights(args.src)
        layout, names = convert(weights)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f'{args.src}: {error}') from error
    for old, new in names.items():
        print(f'{old} -> {new} {tuple(weights[old].shape)}')
    write_weights(args.dst, OrderedDict((new, weights[old]) for old, new in names.items()))
    print(f'{layout}: all {len(names)} tensors of {args.src} written to {args.dst}')


if __name__ == '__main__':
    main()
