"""Detects objects in pictures, and saves drawn pictures and, as JSON, boxes and masks. Example:

python demo/object_detection.py PICTURE CONFIG CHECKPOINT --out-dir outputs
"""

import argparse

from smmix_mm.apis import DetInferencer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('inputs', help='a picture, or a folder of them')
    parser.add_argument('model', help='config file')
    parser.add_argument('weights', help='checkpoint file')
    parser.add_argument('--out-dir', default='outputs', help='folder of the results, in vis/ and preds/')
    parser.add_argument('--no-save-vis', action='store_true', help='save no drawn pictures')
    parser.add_argument('--no-save-pred', action='store_true', help='save no JSON')
    parser.add_argument('--pred-score-thr', type=float, default=0.3, help='lowest score to draw; default: 0.3')
    parser.add_argument('--batch-size', type=int, default=1, help='default: 1')
    parser.add_argument('--show', action='store_true', help='show the drawn pictures in a window')
    parser.add_argument('--print-result', action='store_true', help='print the predictions')
    parser.add_argument('--palette', default='none', help="as in mmdet; default: the dataset's")
    parser.add_argument('--device', help='default: a GPU if there is one')
    args = parser.parse_args()
    inferencer = DetInferencer(args.model, args.weights, device=args.device, palette=args.palette)
    options = ('batch_size', 'show', 'no_save_vis', 'no_save_pred', 'pred_score_thr', 'print_result', 'out_dir')
    inferencer(args.inputs, **{name: getattr(args, name) for name in options})


if __name__ == '__main__':
    main()
