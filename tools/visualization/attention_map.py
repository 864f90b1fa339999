"""Draws the attention of a classifier's last block over images, of every backbone that has an adapter.

The images pass through the config's test pipeline, so that pictures show what the model sees. Image attention is what
each token receives from the others, class attention what the class token pays to it. Backbones whose attention is not
read show their activation, the energy of the tokens that takes its place. Example:

    python tools/visualization/attention_map.py CONFIG CHECKPOINT data/digit_scenes/val/3
"""

import argparse
import sys
from pathlib import Path

import torch
from common import build_classifier, list_images, stored_class_names
from matplotlib.figure import Figure
from mmengine.config import DictAction
from mmengine.dataset import Compose, default_collate
from mmengine.device import get_device
from torch import nn

from smmix_mm.adapters import Adapter, build_adapter
from smmix_mm.datasets.own_data import read_config
from smmix_mm.files import free_name
from smmix_mm.models.classifiers.motivation import classify, count_classes
from smmix_mm.structures import Features
from smmix_mm.visualization import Panel, draw_panels, overlay, save_figure, shorten_name, to_pictures


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', metavar='CONFIG', help='config of a classifier')
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='its weights')
    parser.add_argument('images', metavar='IMAGE|FOLDER', nargs='+', type=Path, help='images, and folders of images')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/attention_map'), help='folder of the pictures')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='override settings: key=value ...')
    return parser.parse_args()


def read_image(path: Path, pipeline: Compose, model: nn.Module, adapter: Adapter) -> torch.Tensor:
    """Reads an image as the model gets it, ``(1, 3, H, W)``.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If the backbone cannot run on images of its size.
    """
    if path.is_dir():
        raise FileNotFoundError('the folder holds no images')
    if not path.exists():
        raise FileNotFoundError('there is no such file')
    images = model.data_preprocessor(default_collate([pipeline(dict(img_path=str(path)))]))['inputs']
    adapter.check_size(tuple(images.shape[-2:]))
    return images


def name_scores(adapter: Adapter, features: Features) -> dict[str, torch.Tensor]:
    """The scores to show, by name; those that are equal once."""
    image, of_class = features.attention, features.class_attention
    if not adapter.has_attention:
        return {'activation': image}
    if torch.equal(image, of_class):
        return {'image attention': image}
    return {'image attention': image, 'class attention': of_class}


@torch.no_grad()
def draw(model: nn.Module, adapter: Adapter, images: torch.Tensor, classes: list[str], title: str) -> Figure:
    features = adapter.read(images, attention=True, class_attention=True)
    chance, label = classify(model, features.feats).softmax(dim=1).max(dim=1)
    picture = to_pictures(model.data_preprocessor, images)
    scores = name_scores(adapter, features)
    predicted = f'predicted {shorten_name(classes[label.item()])}: {chance.item():.2f}'
    panels = [Panel(picture[0], 'what the model sees', predicted)]
    panels += [Panel(overlay(picture, score)[0], name) for name, score in scores.items()]
    return draw_panels([panels], title, 'attention' if adapter.has_attention else 'activation')


def main() -> None:
    args = parse_args()
    cfg = read_config(args.config, args.cfg_options)
    model = build_classifier(cfg, args.checkpoint, args.config).to(get_device())
    adapter = build_adapter(model.backbone)
    pipeline = Compose(cfg.test_dataloader.dataset.pipeline)
    classes = stored_class_names(args.checkpoint, count_classes(model.head))
    taken: set[Path] = set()
    unread: list[str] = []
    for path, name in list_images(args.images):
        try:
            images = read_image(path, pipeline, model, adapter)
        # Whatever a decoder or a transform raises for a broken file.
        except Exception as error:
            unread.append(f'{path}: {error}')
            print(f'skipped {unread[-1]}', file=sys.stderr, flush=True)
            continue
        target = free_name(args.out, name.with_suffix('.png'), taken)
        save_figure(draw(model, adapter, images, classes, f'{path.name}, {type(model.backbone).__name__}'), target)
        print(target, flush=True)
    if unread:
        raise SystemExit(f'{len(unread)} of {len(taken) + len(unread)} could not be read, see above')


if __name__ == '__main__':
    main()
