"""The families of backbones that publish_backbone.py serves: how to recognise them, their settings and stock names."""

import math
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from mmpretrain.models import VisionTransformer
from mmpretrain.models.backbones import ResNet
from mmpretrain.models.backbones.resnet import get_expansion
from torch import Tensor

from smmix_mm.models import PVT
from smmix_mm.models.backbones.pos_embed import is_square
from smmix_mm.models.backbones.pvt_layout import settings_of

Weights = Mapping[str, Tensor]


class Untold:
    """A value that the tensors do not tell; printed as it is, to be filled in."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def untold_in(value: object) -> list[str]:
    """The values among settings that the tensors do not tell."""
    if isinstance(value, Untold):
        return [value.text]
    return [text for item in value.values() for text in untold_in(item)] if isinstance(value, Mapping) else []


IMG_SIZE = Untold('(height, width)')


@dataclass(frozen=True)
class Stock:
    """The stock class of a family in mmdet or mmseg.

    Attributes:
        type: Its name in the registry.
        convert: From weights with our names to weights with its names. Raises ValueError if they do not fit.
        rename: From our name of a tensor to its name; None if it has no such tensor.
        settings: From the settings of :attr:`Family.read` to the arguments of the class.
        note: What the user has to know about it.
    """

    type: str
    convert: Callable[[Weights], Weights]
    rename: Callable[[str], str | None]
    settings: Callable[[dict], dict]
    note: str = ''


@dataclass(frozen=True)
class Family:
    """A family of backbones.

    Attributes:
        name: In messages.
        parts: The first steps of the names of its tensors.
        mark: Pattern of names that it has in many tensors, so that it is recognised even if one is missing.
        other: Pattern of names that other backbones have, which share the mark.
        read: From complete weights to the type and the arguments of the class that has exactly these tensors; raises
            ValueError if a tensor that they are read from is missing or malformed. ``show`` is no argument of it, but
            holds arguments to print in the place of those that the tensors do not tell.
        dense: The arguments to print in addition, for dense tasks.
        note: What the user has to know about the backbone under our names.
        has_norms: Whether each stage of ``out_indices`` has a norm of its own, ``norm0`` and so on.
        stock: By naming.
        instead: What to do where there is no stock class, by naming.
    """

    name: str
    parts: tuple[str, ...]
    mark: str
    read: Callable[[Weights], dict]
    dense: Callable[[dict], dict]
    other: str = r'(?!)'
    note: str = ''
    has_norms: bool = False
    stock: Mapping[str, Stock] = field(default_factory=dict)
    instead: Mapping[str, str] = field(default_factory=dict)


def find_families(weights: Weights, ignored: tuple[str, ...] = ()) -> list[Family]:
    """The families that some of the weights belong to. Names start as in the file, or below a prefix.

    Args:
        weights (Mapping[str, Tensor]): By name.
        ignored (tuple[str, ...]): First steps of names that are not searched.
    """
    names = [name for name in weights if name.partition('.')[0] not in ignored]
    found = []
    for family in FAMILIES:
        marks = [re.search(rf'(?:^|(?<=\.)){family.mark}', name) for name in names]
        places = tuple({match.string[: match.start()] for match in marks if match})
        below = [name for name in names if name.startswith(places)] if places else []
        if below and not any(re.search(family.other, name) for name in below) and not _has_other_shapes(weights, below):
            found.append(family)
    return found


def _has_other_shapes(weights: Weights, names: list[str]) -> bool:
    """Whether shapes alone tell a backbone from those of a family: its names are theirs."""
    shapes = {name: weights[name].shape for name in names}
    # ResNeXt and RegNet have ResNet's names, but their bottlenecks have grouped convolutions.
    kernels = [shape for name, shape in shapes.items() if name.endswith('layer1.0.conv2.weight')]
    # RevVisionTransformer joins its two streams before the final norm.
    norms = [math.prod(shape) for name, shape in shapes.items() if name.endswith('ln1.weight')]
    is_grouped = any(len(shape) == 4 and shape[0] != shape[1] for shape in kernels)
    return is_grouped or (bool(norms) and max(norms) == 2 * min(norms))


def _measure(weights: Weights, name: str, ndim: int, family: str) -> torch.Size:
    if name not in weights:
        raise ValueError(f'{name} of {family} is missing')
    if weights[name].ndim != ndim:
        raise ValueError(f'{name} of {family} needs {ndim} dimensions, but has the shape {tuple(weights[name].shape)}')
    return weights[name].shape


def _count(weights: Weights, pattern: str) -> int:
    """One more than the largest number that the pattern finds."""
    found = (re.match(pattern, name) for name in weights)
    return 1 + max((int(match[1]) for match in found if match), default=-1)


def _norms(weights: Weights, stages: int) -> tuple[int, ...]:
    """The stages whose maps are normalised; the last one's always are."""
    return tuple(
        i for i in range(stages) if i == stages - 1 or not {f'norm{i}.weight', f'norm{i}.bias'}.isdisjoint(weights)
    )


def _grid(num_tokens: int, patch_size: int) -> tuple[tuple[int, int], object]:
    """An input size with that many tokens, and the one to print: that of a square, which need not be the true one."""
    side = math.isqrt(num_tokens)
    square = is_square(num_tokens)
    return (patch_size, num_tokens * patch_size), side * patch_size if square else IMG_SIZE


def _same(weights: Weights) -> Weights:
    return weights


# PVT


def _read_pvt(weights: Weights) -> dict:
    settings = settings_of(weights)
    arch = settings['arch']
    known = {tuple(zoo['embed_dims']): zoo['num_heads'] for zoo in PVT.arch_zoo.values()}
    heads = known.get(tuple(arch['embed_dims']), Untold('num_heads'))
    show = dict(arch={**arch, 'num_heads': heads}, img_size=settings.get('img_size', IMG_SIZE))
    any_size = math.prod(arch['strides']) * max(arch['sr_ratios'])
    return {'type': 'smmix_mm.PVT', 'img_size': any_size, **settings, 'show': show}


# Prefixes of the names within a block.
MMDET_PVT_NAMES = {
    'attn.q.': 'attn.attn.in_proj_',
    'attn.kv.': 'attn.attn.in_proj_',
    'attn.proj.': 'attn.attn.out_proj.',
    'mlp.fc1.': 'ffn.layers.0.',
    'mlp.fc2.': 'ffn.layers.3.',
}


def _mmdet_pvt_name(name: str) -> str | None:
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
    for ours, theirs in MMDET_PVT_NAMES.items():
        if rest.startswith(ours):
            rest = theirs + rest.removeprefix(ours)
    # The position embedding precedes the blocks.
    return f'layers.{stage}.1.{int(depth) + 1}.{rest}'


def _to_mmdet_pvt(weights: Weights) -> Weights:
    if 'block1.0.attn.q.bias' not in weights:
        raise ValueError(
            'a PVT with qkv_bias=False does not fit stock mmdet: the output projection of its attention has a bias, '
            "mmdet's has none"
        )
    converted = OrderedDict()
    for name, value in weights.items():
        new = _mmdet_pvt_name(name)
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


def _mmdet_pvt_settings(settings: dict) -> dict:
    arch, heads = settings['arch'], settings['show']['arch']['num_heads']
    is_known = not isinstance(heads, Untold)
    return dict(
        pretrain_img_size=settings['show']['img_size'],
        num_layers=arch['depths'],
        patch_sizes=arch['strides'],
        strides=arch['strides'],
        sr_ratios=arch['sr_ratios'],
        mlp_ratios=[int(ratio) for ratio in arch['mlp_ratios']],
        # mmdet's are channels of a head.
        embed_dims=arch['embed_dims'][0] // heads[0]
        if is_known
        else Untold(f'{arch["embed_dims"][0]} // num_heads[0]'),
        num_heads=heads,
        in_channels=settings['in_channels'],
        out_indices=(0, 1, 2, 3),
    )


# CaiT


def _read_cait(weights: Weights) -> dict:
    def measure(name: str, ndim: int) -> torch.Size:
        return _measure(weights, name, ndim, 'CaiT')

    dims, in_channels, _, patch_size = measure('patch_embed.proj.weight', 4)
    img_size, shown = _grid(measure('pos_embed', 3)[1], patch_size)
    hidden, _ = measure('blocks.0.mlp.fc1.weight', 2)
    return dict(
        type='smmix_mm.CaiT',
        arch=dict(
            embed_dims=dims,
            depth=_count(weights, r'blocks\.(\d+)\.'),
            num_heads=measure('blocks.0.attn.proj_l.weight', 2)[0],
            mlp_ratio=hidden / dims,
            class_depth=_count(weights, r'blocks_token_only\.(\d+)\.'),
        ),
        img_size=img_size,
        patch_size=patch_size,
        in_channels=in_channels,
        qkv_bias=any(name.endswith('.attn.qkv.bias') for name in weights),
        show=dict(img_size=shown),
    )


# VisionTransformer


def _read_vit(weights: Weights) -> dict:
    def measure(name: str, ndim: int) -> torch.Size:
        return _measure(weights, name, ndim, 'VisionTransformer')

    dims, in_channels, _, patch_size = measure('patch_embed.projection.weight', 4)
    num_tokens = measure('pos_embed', 3)[1]
    # Without a class token, the number of tokens is that of a square.
    with_cls_token = 'cls_token' in weights or not is_square(num_tokens)
    img_size, shown = _grid(num_tokens - with_cls_token, patch_size)
    arch = dict(
        embed_dims=dims,
        num_layers=_count(weights, r'layers\.(\d+)\.'),
        num_heads=1,
        feedforward_channels=measure('layers.0.ffn.layers.0.0.weight', 2)[0],
    )
    known = (zoo for zoo in VisionTransformer.arch_zoo.values() if {**zoo, 'num_heads': 1} == arch)
    heads = next(known, dict(num_heads=Untold('num_heads')))['num_heads']
    has_ln2 = not {'ln2.weight', 'ln2.bias'}.isdisjoint(weights)
    return dict(
        type='mmpretrain.VisionTransformer',
        arch=arch,
        img_size=img_size,
        patch_size=patch_size,
        in_channels=in_channels,
        qkv_bias=any(name.endswith('.attn.qkv.bias') for name in weights),
        final_norm=not (has_ln2 and {'ln1.weight', 'ln1.bias'}.isdisjoint(weights)),
        out_type='avg_featmap' if has_ln2 else 'cls_token' if with_cls_token else 'featmap',
        with_cls_token=with_cls_token,
        show=dict(arch={**arch, 'num_heads': heads}, img_size=shown),
    )


MMSEG_VIT_NAMES = {'attn.qkv.': 'attn.attn.in_proj_', 'attn.proj.': 'attn.attn.out_proj.'}


def _mmseg_vit_name(name: str) -> str | None:
    # The second final norm follows an average over all places.
    if name.startswith('ln2.'):
        return None
    for ours, theirs in MMSEG_VIT_NAMES.items():
        name = re.sub(rf'^(layers\.\d+\.){re.escape(ours)}', rf'\g<1>{theirs}', name)
    return name


def _to_mmseg_vit(weights: Weights) -> Weights:
    dims = weights['pos_embed'].shape[-1]
    hidden = len(weights['layers.0.ffn.layers.0.0.weight'])
    if 'cls_token' not in weights:
        raise ValueError('a VisionTransformer without class token does not fit stock mmseg, which always has one')
    if 'layers.0.attn.qkv.bias' not in weights:
        raise ValueError(
            'a VisionTransformer with qkv_bias=False does not fit stock mmseg: the output projection of its attention '
            "has a bias, mmseg's has none"
        )
    if hidden % dims:
        raise ValueError(
            f'a VisionTransformer with feedforward_channels={hidden} does not fit stock mmseg, which needs a multiple '
            f'of embed_dims={dims}'
        )
    renamed = ((_mmseg_vit_name(name), value) for name, value in weights.items())
    return OrderedDict((name, value) for name, value in renamed if name)


def _mmseg_vit_settings(settings: dict) -> dict:
    arch = settings['show']['arch']
    return dict(
        img_size=settings['show']['img_size'],
        patch_size=settings['patch_size'],
        in_channels=settings['in_channels'],
        embed_dims=arch['embed_dims'],
        num_layers=arch['num_layers'],
        num_heads=arch['num_heads'],
        mlp_ratio=arch['feedforward_channels'] // arch['embed_dims'],
        patch_bias=True,
        norm_cfg=dict(type='LN', eps=1e-6),
        final_norm=settings['final_norm'],
        out_indices=(arch['num_layers'] - 1,),
    )


# SwinTransformer


def _read_swin(weights: Weights) -> dict:
    def measure(name: str, ndim: int) -> torch.Size:
        return _measure(weights, name, ndim, 'SwinTransformer')

    dims, in_channels, _, patch_size = measure('patch_embed.projection.weight', 4)
    stages = _count(weights, r'stages\.(\d+)\.')
    table = 'attn.w_msa.relative_position_bias_table'
    tables = [measure(f'stages.{stage}.blocks.0.{table}', 2) for stage in range(stages)]
    settings = dict(
        type='mmpretrain.SwinTransformer',
        arch=dict(
            embed_dims=dims,
            depths=[_count(weights, rf'stages\.{stage}\.blocks\.(\d+)\.') for stage in range(stages)],
            num_heads=[heads for _, heads in tables],
        ),
        patch_size=patch_size,
        # It has a row for each offset of two tokens in a window.
        window_size=(math.isqrt(tables[0][0]) + 1) // 2,
        in_channels=in_channels,
        out_indices=_norms(weights, stages),
    )
    if 'absolute_pos_embed' in weights:
        img_size, shown = _grid(measure('absolute_pos_embed', 3)[1], patch_size)
        settings.update(use_abs_pos_embed=True, img_size=img_size, show=dict(img_size=shown))
    return settings


def _to_stock_swin(weights: Weights, prefix: str) -> Weights:
    if 'absolute_pos_embed' in weights:
        raise ValueError(
            'a SwinTransformer with use_abs_pos_embed=True does not fit stock mmdet and mmseg, which fail to load '
            'absolute_pos_embed'
        )
    return OrderedDict((prefix + name, value) for name, value in weights.items())


def _stock_swin_settings(settings: dict) -> dict:
    arch = settings['arch']
    stages = len(arch['depths'])
    return dict(
        embed_dims=arch['embed_dims'],
        depths=arch['depths'],
        num_heads=arch['num_heads'],
        patch_size=settings['patch_size'],
        window_size=settings['window_size'],
        in_channels=settings['in_channels'],
        strides=(settings['patch_size'], *[2] * (stages - 1)),
        out_indices=tuple(range(stages)),
    )


def _stock_swin(library: str, prefix: str = '') -> Stock:
    return Stock(
        f'{library}.SwinTransformer',
        lambda weights: _to_stock_swin(weights, prefix),
        lambda name: prefix + name,
        _stock_swin_settings,
    )


# ResNet

STYLE = "style does not show in the tensors: if it was 'caffe' in training, set it so"


def _read_resnet(weights: Weights) -> dict:
    def measure(name: str, ndim: int) -> torch.Size:
        return _measure(weights, name, ndim, 'ResNet')

    stem_channels, in_channels, _, kernel = measure('conv1.weight', 4)
    blocks = tuple(_count(weights, rf'layer{stage}\.(\d+)\.') for stage in range(1, 5))
    expansion = 4 if any(re.match(r'layer\d\.\d+\.(conv|bn)3\.', name) for name in weights) else 1
    depths = {(get_expansion(block), counts): depth for depth, (block, counts) in ResNet.arch_settings.items()}
    if (expansion, blocks) not in depths:
        kind = 'bottlenecks' if expansion > 1 else 'basic blocks'
        raise ValueError(f'no ResNet has {blocks} {kind}')
    return dict(
        type='mmpretrain.ResNet_CIFAR' if kernel == 3 else 'mmpretrain.ResNet',
        depth=depths[expansion, blocks],
        in_channels=in_channels,
        stem_channels=stem_channels,
        base_channels=measure('layer1.0.conv1.weight', 4)[0],
    )


def _stock_resnet_settings(settings: dict) -> dict:
    if settings['type'] == 'mmpretrain.ResNet_CIFAR':
        raise ValueError(
            'a ResNet_CIFAR does not fit the stock ResNet, whose first convolution is 7 x 7 with a stride: use naming '
            'smmix_mm and mmpretrain.ResNet_CIFAR'
        )
    kept = {key: value for key, value in settings.items() if key != 'type'}
    return dict(kept, style='pytorch', out_indices=(0, 1, 2, 3))


def _stock_resnet(library: str) -> Stock:
    return Stock(f'{library}.ResNet', _same, str, _stock_resnet_settings, STYLE)


# ConvNeXt


def _read_convnext(weights: Weights) -> dict:
    def measure(name: str, ndim: int) -> torch.Size:
        return _measure(weights, name, ndim, 'ConvNeXt')

    _, in_channels, _, patch_size = measure('downsample_layers.0.0.weight', 4)
    stages = _count(weights, r'stages\.(\d+)\.')
    pointwise = 'stages.0.0.pointwise_conv1.weight'
    return dict(
        type='mmpretrain.ConvNeXt',
        arch=dict(
            depths=[_count(weights, rf'stages\.{stage}\.(\d+)\.') for stage in range(stages)],
            channels=[measure(f'stages.{stage}.0.depthwise_conv.weight', 4)[0] for stage in range(stages)],
        ),
        in_channels=in_channels,
        stem_patch_size=patch_size,
        linear_pw_conv=pointwise not in weights or weights[pointwise].ndim == 2,
        use_grn=any('.grn.' in name for name in weights),
        layer_scale_init_value=1e-6
        if any(name.endswith('.gamma') and '.grn.' not in name for name in weights)
        else 0.0,
        out_indices=_norms(weights, stages),
    )


def _all_stages(settings: dict) -> dict:
    return dict(out_indices=tuple(range(len(settings['arch']['depths']))))


FAMILIES = (
    Family(
        name='PVT',
        parts=(
            *(f'{part}{stage}' for part in ('patch_embed', 'pos_embed', 'block') for stage in range(1, 5)),
            'cls_token',
            'norm',
        ),
        mark=r'patch_embed1\.',
        # VAN.
        other=r'(^|\.)blocks\d\.',
        read=_read_pvt,
        dense=lambda _: dict(out_type='featmap', out_indices=(0, 1, 2, 3)),
        stock=dict(
            mmdet=Stock('mmdet.PyramidVisionTransformer', _to_mmdet_pvt, _mmdet_pvt_name, _mmdet_pvt_settings),
        ),
        instead=dict(mmseg='use naming smmix_mm, which smmix_mm.PVT loads in configs of mmseg'),
    ),
    Family(
        name='CaiT',
        parts=('patch_embed', 'pos_embed', 'cls_token', 'blocks', 'blocks_token_only', 'norm'),
        mark=r'blocks_token_only\.',
        read=_read_cait,
        dense=lambda _: dict(out_type='featmap'),
        instead={
            library: f'use naming smmix_mm, which smmix_mm.CaiT loads in configs of {library}'
            for library in ('mmdet', 'mmseg')
        },
    ),
    Family(
        name='VisionTransformer',
        parts=('patch_embed', 'pos_embed', 'cls_token', 'layers', 'ln1'),
        mark=r'layers\.\d+\.(ln1|attn\.qkv)\.',
        # BEiT, DeiT III, the distilled DeiT, EVA-02, CLIP's ViT and MLP-Mixer.
        other=r'(^|\.)(dist_token$|pre_norm\.)'
        r'|layers\.\d+\.(gamma|mlp|token_mix|(attn|ffn)\.gamma|attn\.(q_bias|v_bias|rope|relative))',
        read=_read_vit,
        dense=lambda settings: {} if settings['out_type'] == 'avg_featmap' else dict(out_type='featmap'),
        stock=dict(mmseg=Stock('mmseg.VisionTransformer', _to_mmseg_vit, _mmseg_vit_name, _mmseg_vit_settings)),
        instead=dict(mmdet='use naming smmix_mm, which mmpretrain.VisionTransformer loads in configs of mmdet'),
    ),
    Family(
        name='SwinTransformer',
        parts=('patch_embed', 'stages'),
        mark=r'stages\.\d+\.blocks\.\d+\.attn\.w_msa\.',
        # Swin V2.
        other=r'\.w_msa\.(cpb_mlp|logit_scale)',
        read=_read_swin,
        # As stock classes do: they pad maps that are smaller than a window, and shift windows in maps of its size.
        dense=lambda settings: dict(_all_stages(settings), pad_small_map=True),
        has_norms=True,
        # mmdet's own loading skips all names without this prefix, and mmseg's accepts names with and without it.
        stock=dict(mmdet=_stock_swin('mmdet', 'backbone.'), mmseg=_stock_swin('mmseg')),
    ),
    Family(
        name='ResNet',
        parts=('conv1', 'bn1', 'layer1', 'layer2', 'layer3', 'layer4'),
        mark=r'layer1\.0\.(conv|bn)\d\.',
        # HRNet, Res2Net, ResNeSt, SE-ResNet and ResNets with three convolutions in the stem.
        other=r'(^|\.)(stage\d|stem|bns|convs|se_layer)\.',
        read=_read_resnet,
        dense=lambda _: dict(style='pytorch', out_indices=(0, 1, 2, 3)),
        note=STYLE,
        stock=dict(mmdet=_stock_resnet('mmdet'), mmseg=_stock_resnet('mmseg')),
    ),
    Family(
        name='ConvNeXt',
        parts=('downsample_layers', 'stages'),
        mark=r'stages\.\d+\.\d+\.depthwise_conv\.',
        # EdgeNeXt.
        other=r'\.(conv_modules|csa)\.',
        read=_read_convnext,
        dense=lambda settings: dict(_all_stages(settings), gap_before_final_norm=False),
        has_norms=True,
        instead={
            library: f'use naming smmix_mm, which mmpretrain.ConvNeXt loads in configs of {library}'
            for library in ('mmdet', 'mmseg')
        },
    ),
)
