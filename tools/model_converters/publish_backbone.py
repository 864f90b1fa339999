"""Strips a checkpoint to the weights of its backbone, and puts a hash into the file's name.

Takes training checkpoints of ours, PVT's official ones and SMMix's, and writes <DST stem>-<8 digits of SHA-256>.pth. A
PVT has to be whole; of other backbones, found below `backbone.`, all tensors are taken as they are. The file is read
without executing what is pickled in it.

--naming smmix_mm keeps the names, and class token and final norm too, so that one file serves classification and dense
tasks: init_cfg=dict(type='Pretrained', checkpoint=...) of the backbone loads it.

--naming mmdet gives a PVT the names and shapes of stock mmdet's PyramidVisionTransformer, which then needs no plugin:
init_cfg=dict(type='Pretrained', checkpoint=...) loads it, with convert_weights as it is by default or False, because
the conversion leaves these names alone. Class token, its position embedding and final norm are dropped. Feature maps
then differ, by a few 1e-5 of their size for a fresh PVT-T and for the demo's trained one: stock mmdet has one LayerNorm
eps (1e-6) everywhere, the official PVT 1e-5 in the patch embeddings and after the spatial reduction. Both interpolate
position embeddings in the same way. (Its conversion takes our naming too, but of 224 pixels alone, where it knows the
class token's row by there being 50.)
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

# The parts of a PVT. No other backbone calls one as it calls the first.
PARTS = [f'{part}{stage}' for part in ('patch_embed', 'pos_embed', 'block') for stage in range(1, 5)]
PARTS += ['cls_token', 'norm']

# Beginnings of the names within a block.
MMDET_NAMES = {
    'attn.q.': 'attn.attn.in_proj_',
    'attn.kv.': 'attn.attn.in_proj_',
    'attn.proj.': 'attn.attn.out_proj.',
    'mlp.fc1.': 'ffn.layers.0.',
    'mlp.fc2.': 'ffn.layers.3.',
}


def check_whole(weights: Mapping[str, Tensor], source: Path) -> dict:
    """Refuses a PVT of which anything is missing, left over, or of a shape that does not fit the others.

    Args:
        weights (Mapping[str, Tensor]): By the names of :class:`PVT`.
        source (Path): Named in the error.

    Returns:
        dict: Its settings, see :func:`settings_of`.

    Raises:
        ValueError: With the names.
    """
    try:
        settings = settings_of(weights)
        arch = settings['arch']
        any_size = math.prod(arch['strides']) * max(arch['sr_ratios'])
        wanted = PVT(**{'img_size': any_size, **settings}).state_dict()
    except ValueError as error:
        raise ValueError(f'{source} does not hold a whole PVT: {error}') from error
    untold = () if 'img_size' in settings else ('pos_embed',)
    wrong = [f'{name} is missing' for name in wanted if name not in weights]
    wrong += [f'{name} has no place' for name in weights if name not in wanted]
    wrong += [
        f'{name} has to measure {tuple(value.shape)}, but measures {tuple(weights[name].shape)}'
        for name, value in wanted.items()
        if name in weights and weights[name].shape != value.shape and not name.startswith(untold)
    ]
    if wrong:
        raise ValueError(f'{source} does not hold a whole PVT:\n' + '\n'.join(wrong[:20]))
    return settings


def mmdet_name(name: str) -> str | None:
    """What stock mmdet calls a tensor of PVT; None for what it does not have. Queries, keys and values share a name."""
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
    # The position embedding stands before the blocks.
    return f'layers.{stage}.1.{int(depth) + 1}.{rest}'


def to_mmdet(weights: Mapping[str, Tensor]) -> 'OrderedDict[str, Tensor]':
    """A whole PVT, as stock mmdet's ``PyramidVisionTransformer`` names and shapes it.

    Args:
        weights (Mapping[str, Tensor]): By the names of :class:`PVT`.

    Returns:
        OrderedDict[str, Tensor]: By the names of ``PyramidVisionTransformer``.

    Raises:
        ValueError: If it has no bias of queries, keys and values.
    """
    if 'block1.0.attn.q.bias' not in weights:
        raise ValueError("stock mmdet's PVT without qkv_bias has no bias after the attention either, but this one has")
    converted = OrderedDict()
    for name, value in weights.items():
        new = mmdet_name(name)
        if new is None or '.attn.kv.' in name:
            continue
        if '.attn.q.' in name:
            value = torch.cat([value, weights[name.replace('.attn.q.', '.attn.kv.')]])
        elif re.search(r'\.mlp\.fc[12]\.weight', name):
            # Linear layers there are convolutions of one pixel.
            value = value[:, :, None, None]
        elif name == 'pos_embed4' and 'cls_token' in weights:
            value = value[:, 1:]
        converted[new] = value
    return converted


def publish(src: Path, dst: Path, naming: str, prefix: str | None = None) -> Path:
    """Does what the program does, and prints the fate of every tensor.

    Args:
        src (Path): Checkpoint.
        dst (Path): Where to write, without the hash.
        naming (str): ``'smmix_mm'`` or ``'mmdet'``.
        prefix (str, optional): See :func:`smmix_mm.models.load_backbone`. Defaults to None.

    Returns:
        Path: What was written.

    Raises:
        FileNotFoundError, ValueError: If there is no such file, or no single whole backbone in it, or none that stock
            mmdet has.
    """
    weights = read_weights(src)
    settings = None
    if any(PARTS[0] in key.split('.') for key in weights if key.startswith(normalise_prefix(prefix))):
        parts = PARTS
        place = find_backbone(weights, parts, str(src), prefix, BESIDE_BACKBONE)
    elif naming == 'mmdet':
        raise ValueError(f'naming mmdet is for PVT, but {src} has no {PARTS[0]}; it has {", ".join(list(weights)[:8])}')
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
    parser.add_argument('dst', type=Path, help='where to write; the hash is put before .pth')
    parser.add_argument('--naming', choices=['smmix_mm', 'mmdet'], default='smmix_mm', help='default: smmix_mm')
    parser.add_argument('--prefix', help='take the backbone below this prefix, and leave all else alone')
    args = parser.parse_args()
    try:
        publish(args.src, args.dst, args.naming, args.prefix)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(str(error)) from error


if __name__ == '__main__':
    main()
