"""Measures the processor time per image of the training pipelines beside those of timm and of the libraries.

The images are those of data_loading.py: JPEGs of ImageNet's usual size for classification, and of COCO's for the
resizing of detection and segmentation. All pipelines of a task run in one process, in random order within a round.
"""

import argparse
import copy
import tempfile
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path

import cv2
import numpy as np
import torch
from data_loading import make_images
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from PIL import Image
from timing import print_times, time_interleaved, write_report
from timm.data import create_transform

from smmix_mm.configs import CONFIGS
from smmix_mm.registry import TRANSFORMS

Step = Callable[[str], object]
RECIPE = 'configs/smmix/deit-small_smmix_8xb128-300e_in1k.py'
DENSE = {
    'detection, 1333 x 800': ('configs/_base_/datasets/coco_detection_bs2_1333x800.py', 'mmdet'),
    'segmentation, 2048 x 512': ('configs/_base_/datasets/ade20k_bs2_512x512.py', 'mmseg'),
}
COCO_SIZE = (640, 480)
# Steps that need annotations, and the packing.
WITHOUT_IMAGE = ('smmix_mm.LoadInstances', 'smmix_mm.LoadLabelMap', 'mmdet.PackDetInputs', 'mmseg.PackSegInputs')


def classification() -> dict[str, Step]:
    """Pipelines of the DeiT recipe, from a file to a tensor of 8 bits."""
    ours = Config.fromfile(CONFIGS.parent / RECIPE).train_pipeline
    former = copy.deepcopy(ours)
    former[0]['imdecode_backend'] = 'pillow'
    former[1].update(type='mmpretrain.RandomResizedCrop', backend='pillow')
    former[3]['type'] = 'mmpretrain.RandAugment'
    stock = copy.deepcopy(former)
    stock[0] = dict(type='mmpretrain.LoadImageFromFile')
    # Without the normalisation, which timm's loader leaves to the device as well.
    transform = create_transform(
        224, is_training=True, auto_augment='rand-m9-mstd0.5-inc1', interpolation='bicubic', use_prefetcher=True
    )

    def timm(path: str) -> object:
        image = Image.open(path).convert('RGB')
        try:
            return transform(image)
        except ValueError:
            # Pillow 13 refuses the 0 bits that timm's Posterize asks for at the highest magnitude.
            return None

    return {
        'ours': in_openmmlab(ours, gt_label=0),
        'ours, former steps': in_openmmlab(former, gt_label=0),
        'mmpretrain': in_openmmlab(stock, gt_label=0),
        'timm': timm,
    }


def in_openmmlab(pipeline: list[dict], **annotations: object) -> Step:
    transform = Compose([TRANSFORMS.build(copy.deepcopy(settings)) for settings in pipeline])
    return lambda path: transform(dict(img_path=path, **copy.copy(annotations)))


def dense(config: str) -> dict[str, Step]:
    """The steps of a training pipeline of detection or segmentation that touch the image."""
    ours = [
        step for step in Config.fromfile(CONFIGS.parent / config).train_pipeline if step['type'] not in WITHOUT_IMAGE
    ]
    former, stock = copy.deepcopy(ours), copy.deepcopy(ours)
    former[0]['imdecode_backend'] = 'pillow'
    stock[0] = dict(type='mmcv.LoadImageFromFile')
    pipelines = {'ours': ours, 'ours, former steps': former, 'the library': stock}
    # Crops of segmentation are drawn anew while one class fills them.
    labels = np.random.default_rng(0).integers(0, 150, COCO_SIZE[::-1], dtype=np.uint8)
    return {
        name: in_openmmlab(pipeline, gt_seg_map=labels, seg_fields=('gt_seg_map',))
        for name, pipeline in pipelines.items()
    }


def time_pipelines(pipelines: dict[str, Step], paths: list[Path], rounds: int, reference: str) -> dict[str, dict]:
    """Times the pipelines on the same images, and compares them with the reference."""

    def run(step: Step) -> Callable[[], None]:
        files: Iterator[str] = cycle(map(str, paths))
        return lambda: step(next(files))

    return time_interleaved(
        {name: (run(step), len(paths)) for name, step in pipelines.items()},
        {f'{name} / {reference}': lambda times, name=name: times[name] / times[reference] for name in pipelines},
        rounds,
        torch.device('cpu'),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', type=int, default=100, help='number of JPEGs, all of them in every round')
    parser.add_argument('--rounds', type=int, default=9)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/benchmarks/input_pipelines.json'))
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        init_default_scope('mmpretrain')
        paths = make_images(Path(folder, 'imagenet'), args.images)
        results['classification'] = time_pipelines(classification(), paths, args.rounds, 'timm')
        paths = make_images(Path(folder, 'coco'), args.images, COCO_SIZE)
        for name, (config, scope) in DENSE.items():
            init_default_scope(scope)
            results[name] = time_pipelines(dense(config), paths, args.rounds, 'the library')
    for name, result in results.items():
        print(name)
        print_times(result)
    write_report(args.out, args, results)


if __name__ == '__main__':
    main()
