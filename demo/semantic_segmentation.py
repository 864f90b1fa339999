"""Segments pictures, and saves drawn pictures and label maps. Example:

python demo/semantic_segmentation.py PICTURE CONFIG CHECKPOINT --out-dir outputs
"""

import argparse

from smmix_mm.apis import MMSegInferencer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('img', help='a picture, or a folder of them')
    parser.add_argument('model', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out-dir', default='outputs', help='folder of the results, in vis/ and pred/')
    parser.add_argument('--opacity', type=float, default=0.8, help='of the drawn classes, in (0, 1]; default: 0.8')
    parser.add_argument('--with-labels', action='store_true', help='write the names of the classes')
    parser.add_argument('--batch-size', type=int, default=1, help='default: 1')
    parser.add_argument('--show', action='store_true', help='show the drawn pictures in a window')
    parser.add_argument('--device', help='default: a GPU if there is one')
    args = parser.parse_args()
    inferencer = MMSegInferencer(args.model, args.checkpoint, device=args.device)
    options = ('batch_size', 'show', 'out_dir', 'opacity', 'with_labels')
    inferencer(args.img, **{name: getattr(args, name) for name in options})


if __name__ == '__main__':
    main()
