"""Converts checkpoints from the authors' layouts to that of this project.

Supports PVT (official, and SMMix's with its `token_head`), CaiT (official) and DeiT in timm's naming (official, and
SMMix's), bare or under `model` or `state_dict`. Pickled code in the file is not executed. Fails on unknown keys and on
missing tensors.
"""

import argparse
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from backbone_families import FAMILIES
from torch import Tensor

from smmix_mm.checkpoint import check_fit, read_weights, write_weights
from smmix_mm.registry import MODELS


@dataclass(frozen=True)
class Layout:
    """An official naming.

    Attributes:
        mark: A key that no later layout in the list has.
        patterns: Regular expressions of the keys, with their replacements.
        family: Name of the backbone's :class:`Family`, which reads its settings from the shapes.
    """

    mark: str
    patterns: dict[str, str]
    family: str


LAYOUTS = {
    'PVT': Layout(
        mark='patch_embed1.proj.weight',
        patterns={
            r'(cls_token|pos_embed[1-4]|norm\.\w+|(?:patch_embed|block)[1-4]\..+)': r'backbone.\1',
            r'head\.(weight|bias)': r'head.fc.\1',
            r'token_head\.(weight|bias)': r'region_head.\1',
        },
        family='PVT',
    ),
    'CaiT': Layout(
        mark='blocks_token_only.0.attn.q.weight',
        patterns={
            r'(cls_token|pos_embed|norm\.\w+|(?:patch_embed|blocks|blocks_token_only)\..+)': r'backbone.\1',
            r'head\.(weight|bias)': r'head.fc.\1',
        },
        family='CaiT',
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
        family='VisionTransformer',
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
    converted = {
        new.removeprefix('backbone.'): weights[old] for old, new in names.items() if new.startswith('backbone.')
    }
    (family,) = (family for family in FAMILIES if family.name == LAYOUTS[name].family)
    settings = family.read(converted)
    shown = settings.pop('show')['img_size']
    # Official checkpoints are of square images.
    check_fit(MODELS.build(settings | (dict(img_size=shown) if isinstance(shown, int) else {})), converted, name)
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
