"""Strips a checkpoint to the weights of its backbone, and adds a hash to the file name.

Reads training checkpoints of this project, of official PVT and of SMMix, and writes <DST stem>-<8 digits of
SHA-256>.pth. A PVT has to be complete; of other backbones, all tensors below `backbone.` are copied unchanged. Pickled
code in the file is not executed.

--naming smmix_mm keeps the names, the class token and the final norm, so that one file serves classification and dense
tasks. The backbone loads it by init_cfg=dict(type='Pretrained', checkpoint=...).

--naming mmdet gives a PVT the names and shapes of stock mmdet's PyramidVisionTransformer, which then needs no plugin.
It loads the file by init_cfg=dict(type='Pretrained', checkpoint=...); convert_weights does not matter, because the
conversion keeps these names. The class token, its position embedding and the final norm are dropped. Feature maps
differ by a few 1e-5 of their size for a fresh PVT-T and for the demo's trained one: stock mmdet uses a LayerNorm eps of
1e-6 everywhere, official PVT uses 1e-5 in the patch embeddings and after the spatial reduction. Both interpolate
position embeddings in the same way. (mmdet's conversion also accepts the smmix_mm names, but only for 224 pixels, where
it finds the class token because there are 50 rows.)
"""

import argparse
import math
import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from smmix_mm.checkpoint import read_weights, write_weights
from smmix_mm.checkpoint.strict_loading import find_backbone, normalise_prefix, split_backbone
from smmix_mm.models import PVT
from smmix_mm.models.backbones.pvt_layout import settings_of
from smmix_mm.models.pretrained import BESIDE_BACKBONE

# The parts of a PVT. No other backbone has a part with the name of the first.
PARTS = [f'{part}{stage}' for part in ('patch_embed', 'pos_embed', 'block') for stage in range(1, 5)]
PARTS += ['cls_token', 'norm']

# Prefixes of the names within a block.
MMDET_NAMES = {
    'attn.q.': 'attn.attn.in_proj_',
    'attn.kv.': 'attn.attn.in_proj_',
    'attn.proj.': 'attn.attn.out_proj.',
    'mlp.fc1.': 'ffn.layers.0.',
    'mlp.fc2.': 'ffn.layers.3.',
}


def check_whole(weights: Mapping[str, Tensor], source: Path) -> dict:
    """Checks that the weights of a PVT are complete, and that their names and shapes fit each other.

    Args:
        weights (Mapping[str, Tensor]): Weights with the names of :class:`PVT`.
        source (Path): Named in the error.

    Returns:
        dict: Settings of the PVT, see :func:`settings_of`.

    Raises:
        ValueError: If weights are missing, left over or of a wrong shape, with their names.
    """
    try:
        settings = settings_of(weights)
        arch = settings['arch']
        any_size = math.prod(arch['strides']) * max(arch['sr_ratios'])
        wanted = PVT(**{'img_size': any_size, **settings}).state_dict()
    except ValueError as error:
        raise ValueError(f'{source} does not hold a complete PVT: {error}') from error
    untold = () if 'img_size' in settings else ('pos_embed',)
    wrong = [f'{name} is missing' for name in wanted if name not in weights]
    wrong += [f'{name} is unexpected' for name in weights if name not in wanted]
    wrong += [
        f'{name} needs the shape {tuple(value.shape)}, but has {tuple(weights[name].shape)}'
        for name, value in wanted.items()
        if name in weights and weights[name].shape != value.shape and not name.startswith(untold)
    ]
    if wrong:
        raise ValueError(f'{source} does not hold a complete PVT:\n' + '\n'.join(wrong[:20]))
    return settings


def mmdet_name(name: str) -> str | None:
    """Returns stock mmdet's name of a PVT tensor; None if it has none. Queries, keys and values share a name."""
    if name == 'cls_token' or name.startswith('norm.'):
        return None
    part, stage, rest = re.fullmatch(r'(pos_embed|patch_embed|block)(\d)\.?(.*)', name).groups()
    stage = int(stage) - 1
    if part == 'pos_embed':
        return f'layers.{stage}.1.0.pos_embed'
    if part == 'patch_embed':
        return f'layers.{stage}.0.{rest.replace("proj.", "projection.")}'
    depth, _, rest = rest.partition('.')
    for ours, theirs in MMDET_NAMES.items():
        if rest.startswith(ours):
            rest = theirs + rest.removeprefix(ours)
    # The position embedding precedes the blocks.
    return f'layers.{stage}.1.{int(depth) + 1}.{rest}'


def to_mmdet(weights: Mapping[str, Tensor]) -> 'OrderedDict[str, Tensor]':
    """Converts a complete PVT to the names and shapes of stock mmdet's ``PyramidVisionTransformer``.

    Args:
        weights (Mapping[str, Tensor]): Weights with the names of :class:`PVT`.

    Returns:
        OrderedDict[str, Tensor]: Weights with the names of ``PyramidVisionTransformer``.

    Raises:
        ValueError: If queries, keys and values have no bias.
    """
    if 'block1.0.attn.q.bias' not in weights:
        raise ValueError(
            'a PVT with qkv_bias=False does not fit stock mmdet: the output projection of its attention has a bias, '
            "mmdet's has none"
        )
    converted = OrderedDict()
    for name, value in weights.items():
        new = mmdet_name(name)
        if new is None or '.attn.kv.' in name:
            continue
        if '.attn.q.' in name:
            value = torch.cat([value, weights[name.replace('.attn.q.', '.attn.kv.')]])
        elif re.search(r'\.mlp\.fc[12]\.weight', name):
            # mmdet implements linear layers as 1 x 1 convolutions.
            value = value[:, :, None, None]
        elif name == 'pos_embed4' and 'cls_token' in weights:
            value = value[:, 1:]
        converted[new] = value
    return converted


def publish(src: Path, dst: Path, naming: str, prefix: str | None = None) -> Path:
    """Writes the stripped checkpoint, and prints how every tensor was mapped.

    Args:
        src (Path): Checkpoint.
        dst (Path): Path of the new file, without the hash.
        naming (str): ``'smmix_mm'`` or ``'mmdet'``.
        prefix (str, optional): See :func:`smmix_mm.models.load_backbone`. Defaults to None.

    Returns:
        Path: The file written.

    Raises:
        FileNotFoundError, ValueError: If the file does not exist, does not hold exactly one complete backbone, or holds
            one that stock mmdet does not have.
    """
    weights = read_weights(src)
    settings = None
    if any(PARTS[0] in key.split('.') for key in weights if key.startswith(normalise_prefix(prefix))):
        parts = PARTS
        place = find_backbone(weights, parts, str(src), prefix, BESIDE_BACKBONE)
    elif naming == 'mmdet':
        raise ValueError(
            f'naming mmdet needs a PVT, but {src} has no {PARTS[0]}; it has {", ".join(list(weights)[:8])}'
        )
    else:
        parts = []
        place = find_backbone(weights, ['backbone'], str(src), prefix, BESIDE_BACKBONE) + 'backbone.'
    backbone, _ = split_backbone(weights, place, parts, str(src), prefix, BESIDE_BACKBONE)
    if parts:
        settings = check_whole(backbone, src)
    published = to_mmdet(backbone) if naming == 'mmdet' else backbone
    for key, value in weights.items():
        name = key.removeprefix(place)
        new = (mmdet_name(name) if naming == 'mmdet' else name) if name in backbone and key.startswith(place) else None
        print(f'{key} {tuple(value.shape)} ' + (f'-> {new} {tuple(published[new].shape)}' if new else 'left out'))
    written = write_weights(dst, published, hashed=True)
    print(f'{len(published)} tensors from {len(weights)} of {src} written to {written}')
    if naming == 'mmdet':
        print(f'for {_mmdet_settings(settings)}')
    return written


def _mmdet_settings(settings: Mapping) -> str:
    arch = settings['arch']
    shown = dict(
        pretrain_img_size=settings.get('img_size', '(height, width)'),
        num_layers=arch['depths'],
        patch_sizes=arch['strides'],
        strides=arch['strides'],
        sr_ratios=arch['sr_ratios'],
        mlp_ratios=[int(ratio) for ratio in arch['mlp_ratios']],
    )
    listed = ', '.join(f'{key}={value}' for key, value in shown.items())
    channels = f'embed_dims and num_heads whose products are {arch["embed_dims"]}'
    return f"dict(type='mmdet.PyramidVisionTransformer', {listed}, ...), with {channels}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('src', type=Path, help='checkpoint')
    parser.add_argument('dst', type=Path, help='file to write; a hash is inserted before .pth')
    parser.add_argument(
        '--naming', choices=['smmix_mm', 'mmdet'], default='smmix_mm', help='naming of the tensors; default: smmix_mm'
    )
    parser.add_argument('--prefix', help='publish the backbone with this prefix, and ignore everything else')
    args = parser.parse_args()
    try:
        publish(args.src, args.dst, args.naming, args.prefix)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(str(error)) from error


if __name__ == '__main__':
    main()
