"""Tries the methods on every backbone that mmpretrain ships a classification config for, and writes the table.

Of each backbone the config with the fewest operations is taken as it is, without pretrained weights; only the type of
the classifier and the augments are replaced. A training step is taken with each method, and one of a small ViT whose
teacher is the backbone. What is not possible is reported with the error that a user gets.

The table of docs/backbones.md is written with::

    python tools/analysis_tools/backbone_support.py --out docs/backbones.md
"""

import argparse
import copy
import logging
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import mmpretrain
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope
from mmpretrain.apis.model import ModelHub
from mmpretrain.structures import DataSample
from torch import nn

from smmix_mm.registry import MODELS

CONFIGS = Path(mmpretrain.__file__).parent / '.mim/configs'
# What stands around the table in the page.
BEGIN, END = '<!-- table: written by tools/analysis_tools/backbone_support.py -->', '<!-- end of table -->'


@dataclass
class Support:
    """What runs on one backbone.

    Attributes:
        backbone: Its class.
        config: Name of mmpretrain's config, without ``.py``.
        smmix, transmix, tokenmix: Whether a training step runs with the method.
        teacher: Whether it can be the teacher of SMMix.
        class_maps: Whether it can be the teacher of TokenMix, which needs its class maps.
        score: What decides where SMMix cuts and pastes: ``'attention'`` or ``'activation'``.
        reasons: The errors, where something is not possible.
    """

    backbone: str
    config: str
    smmix: bool = False
    transmix: bool = False
    tokenmix: bool = False
    teacher: bool = False
    class_maps: bool = False
    score: str = '-'
    reasons: list[str] = field(default_factory=list)


def find_configs() -> dict[str, Path]:
    """The config with the fewest operations of each backbone's class, of those that classify images."""
    ModelHub._register_mmpretrain_models()
    flops = {info.config: info.metadata.flops for info in ModelHub._models_dict.values() if info.metadata}
    found: dict[str, tuple[float, Path]] = {}
    for path in sorted(CONFIGS.glob('[!_]*/**/*.py')):
        try:
            model = Config.fromfile(path).get('model') or {}
        except Exception:
            # Some of mmpretrain's configs cannot be read.
            continue
        if model.get('type') != 'ImageClassifier' or not model.get('head') or 'MultiLabel' in model.head.type:
            continue
        cost = flops.get(str(path)) or float('inf')
        if cost < found.get(model.backbone.type, (float('inf'),))[0] or model.backbone.type not in found:
            found[model.backbone.type] = (cost, path)
    return {name: path for name, (_, path) in sorted(found.items(), key=lambda item: item[0].lower())}


def image_size(cfg: Config) -> int:
    """Side in pixels of the images of a config, as its test pipeline leaves them."""
    sizes = [
        step.get('crop_size') or step.get('scale')
        for step in cfg.test_dataloader.dataset.pipeline
        if 'Crop' in step.type or step.type == 'Resize'
    ]
    size = sizes[-1] if sizes else cfg.model.backbone.get('img_size', 32)
    return size if isinstance(size, int) else size[0]


def classifier(cfg: Config, kind: str, **settings: object) -> dict:
    """The model of a config as a classifier of another kind, without pretrained weights and batch augments."""
    model = copy.deepcopy(cfg.model.to_dict())
    model.pop('train_cfg', None)
    preprocessor = copy.deepcopy((cfg.get('data_preprocessor') or Config({})).to_dict())
    model.setdefault('data_preprocessor', dict(preprocessor, type='ClsDataPreprocessor'))
    _drop_pretrained(model)
    return dict(model, type=kind, **settings)


def _drop_pretrained(cfg: object) -> None:
    if isinstance(cfg, dict):
        init_cfg = cfg.get('init_cfg')
        if isinstance(init_cfg, dict) and init_cfg.get('type') == 'Pretrained':
            del cfg['init_cfg']
        for value in cfg.values():
            _drop_pretrained(value)
    elif isinstance(cfg, list):
        for value in cfg:
            _drop_pretrained(value)


def small_vit(size: int, patch_size: int, like: dict, kind: str, **settings: object) -> dict:
    """A classifier of the same classes and images, as the other of student and teacher."""
    arch = dict(embed_dims=32, num_layers=1, num_heads=2, feedforward_channels=64)
    # A head without it has a backbone that classifies itself, which is refused.
    classes = like['head'].get('num_classes') or like['data_preprocessor']['num_classes']
    return dict(
        type=kind,
        backbone=dict(type='VisionTransformer', arch=arch, img_size=size, patch_size=patch_size),
        head=dict(type='VisionTransformerClsHead', num_classes=classes, in_channels=32),
        data_preprocessor=like['data_preprocessor'],
        **settings,
    )


def take_step(model: nn.Module, size: int) -> None:
    """Takes one training step on random images. A loss that is not finite is an error."""
    model.train()
    labels = [DataSample().set_gt_label(index) for index in range(2)]
    images = list(torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8))
    data = model.data_preprocessor(dict(inputs=images, data_samples=labels), training=True)
    loss, _ = model.parse_losses(model.loss(**data))
    loss.backward()
    if not loss.isfinite():
        raise ValueError(f'the loss is {loss.item()}')


def try_backbone(name: str, path: Path) -> Support:
    """Takes the steps of one row of the table."""
    cfg, support = Config.fromfile(path), Support(name, path.stem)
    size = image_size(cfg)
    # Patches of TokenMix and of the small ViT: at least seven a side.
    patch_size = max(side for side in range(1, size // 7 + 1) if size % side == 0)
    tokenmix = dict(type='smmix_mm.TokenMix', patch_size=patch_size)
    mixing, stock = 'smmix_mm.MixingClassifier', 'mmpretrain.ImageClassifier'
    like = classifier(cfg, stock)

    def student(augment: dict, teacher: nn.Module | None = None) -> nn.Module:
        return MODELS.build(classifier(cfg, mixing, train_cfg=dict(augments=[augment]), teacher=teacher))

    def smmix() -> nn.Module:
        model = student(dict(type='smmix_mm.SMMix'))
        support.score = 'attention' if model.adapter.has_attention else 'activation'
        return model

    def taught(augment: dict) -> nn.Module:
        teacher = MODELS.build(copy.deepcopy(like))
        return MODELS.build(
            small_vit(size, patch_size, like, mixing, train_cfg=dict(augments=[augment]), teacher=teacher)
        )

    tries = dict(
        smmix=smmix,
        transmix=lambda: student(dict(type='smmix_mm.TransMix')),
        tokenmix=lambda: student(tokenmix, MODELS.build(small_vit(size, patch_size, like, stock))),
        teacher=lambda: taught(dict(type='smmix_mm.SMMix', motivated_by='teacher')),
        class_maps=lambda: taught(tokenmix),
    )
    for column, build in tries.items():
        torch.manual_seed(0)
        try:
            take_step(build(), size)
            setattr(support, column, True)
        except Exception as error:
            reason = str(error).removeprefix('teacher: ')
            support.reasons += [] if reason in support.reasons else [reason]
    return support


def table(rows: Iterable[Support]) -> str:
    """The rows as Markdown, and the reasons below them."""
    head = ('Backbone', "mmpretrain's config", 'SMMix', 'TransMix', 'TokenMix', 'Teacher', 'Score')
    lines = [head, (':--', ':--', *[':-:'] * 4, ':--')]
    reasons = []
    for row in rows:
        ran = ['yes' if one else 'no' for one in (row.smmix, row.transmix, row.tokenmix, row.teacher)]
        if row.teacher and not row.class_maps:
            ran[-1] = 'not of TokenMix'
        lines.append((f'`{row.backbone}`', f'`{row.config}`', *ran, row.score))
        reasons += [f'- `{row.backbone}`: {reason}' for reason in row.reasons]
    written = [f'| {" | ".join(line)} |' for line in lines]
    return '\n'.join([*written, *(['', *reasons] if reasons else [])])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--backbones', nargs='+', help='classes to try; all by default')
    parser.add_argument('--out', type=Path, help='page whose table is replaced; by default the table is printed')
    args = parser.parse_args()
    if args.out and args.backbones:
        parser.error('--out writes the whole table, so that --backbones cannot choose some')
    if args.out and not 0 <= args.out.read_text().find(BEGIN) < args.out.read_text().find(END):
        parser.error(f'--out {args.out} needs the lines {BEGIN} and {END}, between which the table is written')
    warnings.simplefilter('ignore')
    logging.disable(logging.WARNING)
    init_default_scope('mmpretrain')
    MessageHub.get_instance('backbone_support').update_info('seed', 0)
    rows = []
    for name, path in find_configs().items():
        if not args.backbones or name in args.backbones:
            rows.append(try_backbone(name, path))
            print(rows[-1], flush=True)
    if not args.out:
        print(table(rows))
        return
    before, _, rest = args.out.read_text().partition(BEGIN)
    args.out.write_text(f'{before}{BEGIN}\n\n{table(rows)}\n\n{END}{rest.partition(END)[2]}')


if __name__ == '__main__':
    main()
