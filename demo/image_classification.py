"""Classifies pictures, and prints a line of JSON for each. Example:

python demo/image_classification.py PICTURE CONFIG CHECKPOINT --show-dir drawn
"""

import argparse
import json

import numpy as np

from smmix_mm.apis import ImageClassificationInferencer
from smmix_mm.apis.pictures import list_inputs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('img', help='a picture, or a folder of them')
    parser.add_argument('model', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--show', action='store_true', help='show the drawn pictures in a window')
    parser.add_argument('--show-dir', help='folder of the drawn pictures; default: none are saved')
    parser.add_argument('--batch-size', type=int, default=1, help='default: 1')
    parser.add_argument('--device', help='default: a GPU if there is one')
    args = parser.parse_args()
    inferencer = ImageClassificationInferencer(args.model, args.checkpoint, device=args.device)
    pictures = list_inputs(args.img)
    results = inferencer(pictures, batch_size=args.batch_size, show=args.show, show_dir=args.show_dir)
    for picture, result in zip(pictures, results, strict=True):
        shown = {key: value for key, value in result.items() if not isinstance(value, np.ndarray)}
        print(json.dumps(dict(img_path=picture, **shown)))


if __name__ == '__main__':
    main()
