"""Strips a checkpoint to the weights of its backbone, and adds a hash to the file name.

Reads training checkpoints of this project, of official PVT and of SMMix, and writes <DST stem>-<8 digits of
SHA-256>.pth. Backbones of the classes PVT, CaiT, VisionTransformer, SwinTransformer, ResNet and ConvNeXt are recognised
by the names of their tensors and have to be complete; of other backbones, all tensors below `backbone.` are copied
unchanged. Pickled code in the file is not executed. Printed at the end is the config of the backbone that loads the
file by init_cfg=dict(type='Pretrained', checkpoint=...), and what the tensors do not tell.

--naming smmix_mm keeps the names of this project and of mmpretrain, and the class token and the final norm, so that one
file serves classification and dense tasks.

--naming mmdet and --naming mmseg give the names and shapes of the stock class, which then needs no plugin:

  PVT                mmdet.PyramidVisionTransformer
  SwinTransformer    mmdet.SwinTransformer, mmseg.SwinTransformer
  ResNet             mmdet.ResNet, mmseg.ResNet
  VisionTransformer  mmseg.VisionTransformer

PVT: convert_weights does not matter, because the conversion keeps these names. The class token, its position embedding
and the final norm are dropped. Feature maps differ by a few 1e-5 of their size for a fresh PVT-T and for the demo's
trained one: stock mmdet uses a LayerNorm eps of 1e-6 everywhere, official PVT uses 1e-5 in the patch embeddings and
after the spatial reduction. Both interpolate position embeddings in the same way. (mmdet's conversion also accepts the
smmix_mm names, but only for 224 pixels, where it finds the class token because there are 50 rows.)

SwinTransformer: for mmdet the names begin with `backbone.`, because its class skips all others; it needs its default
convert_weights=False. Stock classes normalise the map of every stage, a classifier that of the last one alone, so that
the other norms start fresh. Stock classes shift the windows of a map of one window too, as the last stage's at 224
pixels; classifiers do not.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

from backbone_families import FAMILIES, Family, find_families, untold_in
from torch import Tensor

from smmix_mm.checkpoint import read_weights, write_weights
from smmix_mm.checkpoint.strict_loading import find_backbone, normalise_prefix, split_backbone
from smmix_mm.models.pretrained import BESIDE_BACKBONE
from smmix_mm.registry import MODELS

# Defaults of all classes, which the printed config leaves out.
DEFAULTS = dict(in_channels=3, qkv_bias=True, with_cls_token=True, linear_pw_conv=True, use_grn=False)
NAMINGS = ('smmix_mm', 'mmdet', 'mmseg')


def check_whole(weights: Mapping[str, Tensor], family: Family, source: Path) -> dict:
    """Checks that the weights of a backbone are complete, and that their names and shapes fit each other.

    Args:
        weights (Mapping[str, Tensor]): Weights with our names.
        family (Family): Of the backbone.
        source (Path): Named in the error.

    Returns:
        dict: Settings of the backbone, see :attr:`Family.read`.

    Raises:
        ValueError: If weights are missing, left over or of a wrong shape, with their names.
    """
    try:
        settings = family.read(weights)
        arguments = {key: value for key, value in settings.items() if key != 'show'}
        wanted = MODELS.build(arguments).state_dict()
    except ValueError as error:
        raise ValueError(f'{source} does not hold a complete {family.name}: {error}') from error
    # The grids of a PVT that are not square are not known.
    untold = ('pos_embed',) if family.name == 'PVT' and not isinstance(settings['show']['img_size'], int) else ()
    wrong = [f'{name} is missing' for name in wanted if name not in weights]
    wrong += [f'{name} is unexpected' for name in weights if name not in wanted]
    wrong += [
        f'{name} needs the shape {tuple(value.shape)}, but has {tuple(weights[name].shape)}'
        for name, value in wanted.items()
        if name in weights and weights[name].shape != value.shape and not name.startswith(untold)
    ]
    if wrong:
        raise ValueError(f'{source} does not hold a complete {family.name}:\n' + '\n'.join(wrong[:20]))
    return settings


def recognise(weights: Mapping[str, Tensor], naming: str, source: Path, prefix: str | None = None) -> Family | None:
    """Finds the family of the backbone in a checkpoint.

    Args:
        weights (Mapping[str, Tensor]): By name.
        naming (str): One of :data:`NAMINGS`.
        source (Path): Named in the error.
        prefix (str, optional): Search below this prefix alone. Defaults to None.

    Returns:
        Family | None: None if it is another backbone, which has our names alone.

    Raises:
        ValueError: If there are several, or if there is no stock class for the naming.
    """
    start = normalise_prefix(prefix)
    searched = {key.removeprefix(start): value for key, value in weights.items() if key.startswith(start)}
    found = find_families(searched, BESIDE_BACKBONE)
    if len(found) > 1:
        raise ValueError(
            f'{source} has backbones of several families, {", ".join(family.name for family in found)}: set prefix to '
            f'that of one of them'
        )
    if naming == 'smmix_mm':
        return found[0] if found else None
    if not found:
        served = ', '.join(family.name for family in FAMILIES if naming in family.stock)
        raise ValueError(
            f'naming {naming} serves the families {served}, but {source} has none of them; it has '
            f'{", ".join(list(searched or weights)[:8])}'
        )
    if naming not in found[0].stock:
        raise ValueError(
            f'{source} holds a backbone of the family {found[0].name}, for which naming {naming} has no stock class: '
            f'{found[0].instead[naming]}'
        )
    return found[0]


def publish(src: Path, dst: Path, naming: str, prefix: str | None = None) -> Path:
    """Writes the stripped checkpoint, and prints how every tensor was mapped.

    Args:
        src (Path): Checkpoint.
        dst (Path): Path of the new file, without the hash.
        naming (str): One of :data:`NAMINGS`.
        prefix (str, optional): See :func:`smmix_mm.models.load_backbone`. Defaults to None.

    Returns:
        Path: The file written.

    Raises:
        FileNotFoundError, ValueError: If the file does not exist, does not hold exactly one complete backbone, or holds
            one that has no stock class or does not fit it.
    """
    weights = read_weights(src)
    family = recognise(weights, naming, src, prefix)
    if family:
        parts = list(family.parts)
        place = find_backbone(weights, parts, str(src), prefix, BESIDE_BACKBONE)
    else:
        parts = []
        place = find_backbone(weights, ['backbone'], str(src), prefix, BESIDE_BACKBONE) + 'backbone.'
    backbone, _ = split_backbone(weights, place, parts, str(src), prefix, BESIDE_BACKBONE)
    stock = family.stock.get(naming) if family else None
    usage = describe(family, check_whole(backbone, family, src), backbone, naming) if family else []
    published = stock.convert(backbone) if stock else backbone
    for key, value in weights.items():
        name = key.removeprefix(place)
        new = (stock.rename(name) if stock else name) if name in backbone and key.startswith(place) else None
        print(f'{key} {tuple(value.shape)} ' + (f'-> {new} {tuple(published[new].shape)}' if new else 'left out'))
    written = write_weights(dst, published, hashed=True)
    print(f'{len(published)} tensors from {len(weights)} of {src} written to {written}')
    print('\n'.join(usage))
    return written


def describe(family: Family, settings: dict, weights: Mapping[str, Tensor], naming: str) -> list[str]:
    """The config of the backbone that loads the file, and what has to be known about it, in lines.

    Args:
        family (Family): Of the backbone.
        settings (dict): See :attr:`Family.read`.
        weights (Mapping[str, Tensor]): Weights with our names.
        naming (str): One of :data:`NAMINGS`.

    Raises:
        ValueError: If the stock class does not have such a backbone.
    """
    stock = family.stock.get(naming)
    if stock:
        shown = {'type': stock.type, **stock.settings(settings)}
    else:
        shown = settings | settings.get('show', {}) | family.dense(settings)
    shown = {key: value for key, value in shown.items() if key != 'show' and DEFAULTS.get(key) != value}
    lines = [f'for dict({", ".join(f"{key}={value!r}" for key, value in shown.items())})']
    untold = untold_in(shown)
    if untold:
        lines.append(f'{", ".join(untold)}: as in training, since the tensors do not tell')
    note = stock.note if stock else family.note
    if note:
        lines.append(note)
    if family.has_norms:
        fresh = [f'norm{stage}' for stage in shown['out_indices'] if f'norm{stage}.weight' not in weights]
        if fresh:
            lines.append(f'{", ".join(fresh)} start fresh, since a classifier does not have them')
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('src', type=Path, help='checkpoint')
    parser.add_argument('dst', type=Path, help='file to write; a hash is inserted before .pth')
    parser.add_argument(
        '--naming', choices=NAMINGS, default='smmix_mm', help='naming of the tensors; default: smmix_mm'
    )
    parser.add_argument('--prefix', help='publish the backbone with this prefix, and ignore everything else')
    args = parser.parse_args()
    try:
        publish(args.src, args.dst, args.naming, args.prefix)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(str(error)) from error


if __name__ == '__main__':
    main()
