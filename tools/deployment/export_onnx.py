"""Exports a checkpoint to ONNX and compares the file with the model by onnxruntime.

Of a classifier's config the logits are exported, of a detector's or segmentor's the feature maps of the backbone. The
batch size is free, and so is the image size of feature maps. Needs the packages onnx and onnxruntime. Example:

    python tools/deployment/export_onnx.py CONFIG CHECKPOINT --out model.onnx
"""

import argparse

from mmengine.config import DictAction

from smmix_mm.apis import export_onnx, load_model
from smmix_mm.datasets.own_data import read_config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', default='model.onnx', help='file to write; default: model.onnx')
    parser.add_argument(
        '--shape',
        type=int,
        nargs='+',
        help='height and width of the images, or one number for both; default: img_size of the backbone, or 224',
    )
    parser.add_argument(
        '--fixed-size',
        action='store_true',
        help='export feature maps for images of this shape alone, for backbones that cannot keep the size free',
    )
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='override settings: key=value ...')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg = read_config(args.config, args.cfg_options)
    size = args.shape or cfg.model.backbone.get('img_size', 224)
    size = (size,) if isinstance(size, int) else tuple(size)
    if len(size) > 2:
        raise SystemExit(f'--shape takes one number or two, height and width, but got {size}')
    try:
        model, _ = load_model(cfg, args.checkpoint)
        largest = export_onnx(model, args.out, (size[0], size[-1]), args.fixed_size)
    except (FileNotFoundError, ModuleNotFoundError, ValueError) as error:
        raise SystemExit(str(error)) from error
    print(f'{args.out} differs from the model by at most {largest:.2g}')


if __name__ == '__main__':
    main()
