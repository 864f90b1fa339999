"""Measures where the attention of a model falls: on the pasted regions of mixed images, and on the objects of unmixed.

The images are the validation images of a config. Those of DigitScenes know where their digit is; pictures of COCO with
their annotation file can be given beside. Example:

    python tools/analysis_tools/attention_stats.py configs/smmix/deit-small_smmix_8xb128-300e_in1k.py \\
        work_dirs/deit-small_smmix_8xb128-300e_in1k/epoch_300.pth --methods cutmix smmix \\
        --coco-images data/coco/val2017 --coco-annotations data/coco/annotations/instances_val2017.json
"""

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from named_methods import (
    add_arguments,
    build_alone,
    build_loader,
    describe,
    measure_each,
    parse_args,
    preprocess,
    read_config,
    to_table,
)
from torch import Tensor
from torch.utils.data import DataLoader

from smmix_mm.datasets import DigitScenes
from smmix_mm.datasets.object_masks import CocoMasks, transform_mask
from smmix_mm.evaluation import held_by_windows, pasted_parts, token_parts
from smmix_mm.files import write_whole
from smmix_mm.functional import attention_share
from smmix_mm.mixing import SMMix, step_streams
from smmix_mm.models import MixingClassifier
from smmix_mm.structures import Question
from smmix_mm.visualization import draw_share_histograms

WINDOWS = {'most': 'most attended', 'random': 'random', 'least': 'least attended'}


@dataclass
class Shares:
    """Of each image, the part of the attention and of the area that lies in its region or object.

    Attributes:
        attention, area: Shares from 0 to 1.
        left_out: Images without region or object, or without anything else.
        windows: By the size of windows in tokens, then ``'most'``, ``'random'`` and ``'least'``: what they hold of the
            object, over what the best window of that size would hold.
    """

    attention: list[float] = field(default_factory=list)
    area: list[float] = field(default_factory=list)
    left_out: int = 0
    windows: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, attention: Tensor, parts: Tensor) -> Tensor:
        """Adds the shares of a batch ``(B, h, w)``; returns which of its images were not left out."""
        area = parts.mean(dim=(1, 2))
        valid = (area > 0) & (area < 1)
        self.left_out += int((~valid).sum())
        self.attention += attention_share(attention, parts)[valid].tolist()
        self.area += area[valid].tolist()
        return valid

    def add_windows(self, attention: Tensor, parts: Tensor) -> None:
        for region in SMMix().list_regions(tuple(parts.shape[-2:])):
            held = vars(held_by_windows(attention, parts, region))
            of_size = self.windows.setdefault('x'.join(map(str, region)), {name: [] for name in held})
            for name, values in held.items():
                of_size[name] += values.tolist()

    def all_windows(self) -> dict[str, list[float]]:
        """The values of all sizes together; SMMix draws each size equally often."""
        return {name: [value for held in self.windows.values() for value in held[name]] for name in WINDOWS}

    def check(self, what: str) -> None:
        if not self.attention:
            raise ValueError(f'{what} in none of the {self.left_out} images')


def find_attention(model: MixingClassifier, images: Tensor) -> Tensor:
    return model.motivate(Question(attention=True, by='model'), images).attention


@torch.no_grad()
def measure_pasted(model: MixingClassifier, loader: DataLoader, seed: int) -> Shares:
    """Mixes all images by the model's only method, and measures the attention on the pasted regions.

    Raises:
        ValueError: If the method pastes no regions.
    """
    method, shares = model.mixing.methods[0], Shares()
    for step, batch in enumerate(loader):
        images, targets = preprocess(model, batch)
        mixed = model.mix(method, images, targets, step_streams(seed, step))
        pasted = pasted_parts(method, mixed, len(targets), step_streams(seed, step))
        attention = find_attention(model, mixed.images[: len(targets)])
        shares.add(attention, token_parts(pasted, tuple(attention.shape[-2:])))
    shares.check('a region was pasted')
    return shares


@torch.no_grad()
def measure_objects(
    model: MixingClassifier, loader: DataLoader, find_mask: Callable[[str], np.ndarray | None]
) -> Shares:
    """Measures the attention on the objects of unmixed images.

    Args:
        model (MixingClassifier): Gives the attention.
        loader (DataLoader): Of a dataset of mmpretrain.
        find_mask (Callable): Returns the mask of the objects in the picture of a path; None if there are none.

    Raises:
        ValueError: If no picture has an object.
    """
    shares = Shares()
    for batch in loader:
        found = [find_mask(sample.img_path) for sample in batch['data_samples']]
        chosen = [index for index, mask in enumerate(found) if mask is not None]
        shares.left_out += len(found) - len(chosen)
        if not chosen:
            continue
        masks = torch.stack([transform_mask(found[index], loader.dataset.pipeline) for index in chosen])
        images = model.data_preprocessor(batch)['inputs'][chosen]
        attention = find_attention(model, images)
        parts = token_parts(masks.to(images.device), tuple(attention.shape[-2:]))
        valid = shares.add(attention, parts)
        if valid.any():
            shares.add_windows(attention[valid], parts[valid])
    shares.check('an object is known')
    return shares


def measure_coco(model: MixingClassifier, cfg: Config, args: argparse.Namespace) -> Shares:
    """Measures the attention on the objects of COCO's pictures, which are loaded as the validation images are."""
    masks = CocoMasks(args.coco_annotations)
    dataset = dict(
        type='mmpretrain.CustomDataset',
        data_root=args.coco_images,
        with_label=False,
        pipeline=cfg.val_dataloader.dataset.pipeline,
    )
    try:
        # One by one, since pipelines without a crop leave them their sizes.
        loader = build_loader(cfg, args, dataset=dataset, batch_size=1)
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(f'--coco-images {args.coco_images} holds no pictures: {error}') from error
    return measure_objects(model, loader, masks)


def to_report(shares: Shares) -> dict[str, Any]:
    """The numbers for the JSON file."""
    attention, area = summarise(shares.attention), summarise(shares.area)
    report = dict(
        images=len(shares.attention),
        left_out=shares.left_out,
        attention=attention,
        area=area,
        ratio=attention['mean'] / area['mean'],
    )
    if shares.windows:
        sized = {'all': shares.all_windows(), **shares.windows}
        report['windows'] = {
            size: {name: summarise(values) for name, values in held.items()} for size, held in sized.items()
        }
    return report


def summarise(values: list[float]) -> dict[str, float]:
    tenth, median, ninth = np.quantile(values, (0.1, 0.5, 0.9)).tolist()
    return dict(mean=float(np.mean(values)), std=float(np.std(values)), q10=tenth, q50=median, q90=ninth)


def to_markdown(report: Mapping[str, Any]) -> str:
    """The tables that are printed."""
    word = report['score']

    def row(name: str, part: Mapping[str, Any]) -> tuple[str, ...]:
        shares = (f'{100 * part[what]["mean"]:.1f}' for what in ('attention', 'area'))
        return name, *shares, f'{part["ratio"]:.2f}', str(part['images']), str(part['left_out'])

    head = (f'{word} (%)', 'area (%)', 'ratio', 'images', 'left out')
    tables = []
    if report['pasted']:
        tables.append(to_table(('pasted by', *head), [row(*item) for item in report['pasted'].items()]))
    if objects := report['objects']:
        tables.append(to_table(('objects of', *head), [row(objects['source'], objects)]))
        rows = [
            (size, *(f'{100 * held[name]["mean"]:.0f}' for name in WINDOWS))
            for size, held in objects.get('windows', {}).items()
        ]
        tables.append(to_table(('window (tokens)', *(f'{name} (%)' for name in WINDOWS.values())), rows))
    return '\n\n'.join(tables)


def draw(pasted: Mapping[str, Shares], objects: Shares | None, word: str, path: Path) -> None:
    panels = {
        f'{name}: pasted region': {f'its part of the {word}': shares.attention, 'its part of the area': shares.area}
        for name, shares in pasted.items()
    }
    if objects:
        panels['objects'] = {f'their part of the {word}': objects.attention, 'their part of the area': objects.area}
        held = objects.all_windows()
        panels['objects in a window, over the best window'] = {WINDOWS[name]: held[name] for name in held}
    draw_share_histograms(panels, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, methods=('cutmix', 'smmix'))
    parser.add_argument('--coco-images', metavar='DIR', help='pictures of COCO to measure the attention on objects on')
    parser.add_argument('--coco-annotations', metavar='FILE', help='their annotation file, with boxes or masks')
    parser.add_argument('--out', type=Path, help='folder; default: attention_stats beside the checkpoint')
    args = parse_args(parser)
    if bool(args.coco_images) != bool(args.coco_annotations):
        parser.error('--coco-images and --coco-annotations need each other')
    out = args.out or Path(args.checkpoint).with_name('attention_stats')
    try:
        cfg = read_config(args)
        loader = build_loader(cfg, args)
        model = build_alone(cfg, None, args)
        measures = {
            name: lambda name=name: measure_pasted(build_alone(cfg, name, args), loader, args.seed)
            for name in args.methods
        }
        if args.coco_annotations:
            measures['objects'] = lambda: measure_coco(model, cfg, args)
        elif isinstance(loader.dataset, DigitScenes):
            measures['objects'] = lambda: measure_objects(model, loader, loader.dataset.draw_ink)
        pasted, left_out = measure_each(measures)
    except (OSError, ValueError) as error:
        raise SystemExit(f'{parser.prog}: {error}') from error
    objects = pasted.pop('objects', None)
    report = dict(
        **describe(args),
        score='attention' if model.adapter.has_attention else 'activation',
        pasted={name: to_report(shares) for name, shares in pasted.items()},
        left_out=left_out,
        objects=objects and dict(source=args.coco_annotations or 'DigitScenes', **to_report(objects)),
    )
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report, indent=2)
    write_whole(out / 'attention.json', lambda unfinished: unfinished.write_text(text))
    draw(pasted, objects, report['score'], out / 'attention.png')
    print(f'{to_markdown(report)}\n\nwritten to {out}/attention.json and .png')


if __name__ == '__main__':
    main()
