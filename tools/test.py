"""Tests a checkpoint with the config it was trained with, for models of mmpretrain, mmdet and mmseg."""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config, DictAction
from mmengine.dist import is_main_process
from mmengine.fileio import dump
from torch import Tensor
from torch.distributed.elastic.multiprocessing.errors import record

from smmix_mm.datasets.layout import check_data_layout
from smmix_mm.datasets.own_data import check_own_data, read_config
from smmix_mm.engine import build_test_runner, complete_dataloaders, distributed_run, keep_test
from smmix_mm.registry import find_scope_and_name
from smmix_mm.unwrapping import unwrap_model
from smmix_mm.visualization import SavePictures

# The formats of mmengine.fileio.
DUMPED = ('.pkl', '.pickle')
FORMATS = ('.json', '.yaml', '.yml', *DUMPED)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--work-dir', help='folder for the log; default: work_dirs/<name of the config>')
    parser.add_argument(
        '--out',
        help='write the predictions to this .pkl file, or the metrics to this .json or .yaml file. If it is a folder, '
        'write the label maps predicted by a segmentor there, as PNG',
    )
    parser.add_argument(
        '--out-item',
        choices=['metrics', 'pred'],
        help='what to write to the file; default: predictions to a .pkl file, metrics to others',
    )
    parser.add_argument(
        '--show-dir',
        type=Path,
        help='save pictures of the predictions in this folder, under the names of the images. Objects are drawn if '
        'their score is above default_hooks.visualization.score_thr (default: 0.3). Of several processes only the '
        'first saves pictures',
    )
    parser.add_argument('--show', action='store_true', help='show the predictions in a window')
    parser.add_argument('--interval', type=int, default=1, help='draw one of so many images; default: 1')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds that each picture is shown; default: 2')
    parser.add_argument(
        '--tta',
        action='store_true',
        help='test-time augmentation by tta_model and tta_pipeline of the config. A classifier without them is tested '
        'on every image and its mirror image. Detectors are tested without masks',
    )
    parser.add_argument('--no-pin-memory', action='store_true', help='turn off pin_memory')
    parser.add_argument('--amp', action='store_true', help='test in automatic mixed precision')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='override settings: key=value ...')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def test(cfg: Config, args: argparse.Namespace) -> None:
    """Tests the model, and keeps no reference to it."""
    runner = build_test_runner(cfg)
    roi_head = getattr(unwrap_model(runner.model), 'roi_head', None)
    if args.tta and getattr(roi_head, 'with_mask', False):
        # mmdet merges boxes only.
        roi_head.mask_head = None
    if args.show_dir or args.show:
        score_thr = (cfg.get('default_hooks', {}).get('visualization') or {}).get('score_thr')
        options = {} if score_thr is None else dict(pred_score_thr=score_thr)
        runner.register_hook(
            SavePictures(args.show_dir, args.interval, args.show, args.wait_time, **options), priority='LOW'
        )
    metrics = runner.test()
    if args.out_item == 'metrics' and is_main_process():
        dump(as_plain(metrics), args.out)


def as_plain(value: Any) -> Any:
    """Converts tensors and arrays to lists and numbers, which every format can store."""
    if isinstance(value, Tensor | np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): as_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [as_plain(item) for item in value]
    return value


def apply_out(cfg: Config, args: argparse.Namespace) -> None:
    """Checks ``--out`` before the test starts, and adds the metric that writes predictions."""
    out, path = args.out, Path(args.out)
    if path.suffix in FORMATS and not path.is_dir():
        dumped = path.suffix in DUMPED
        args.out_item = args.out_item or ('pred' if dumped else 'metrics')
        if args.out_item == 'pred':
            if not dumped:
                raise ValueError(f'--out-item pred needs an --out that ends in {", ".join(DUMPED)}, but got {out}')
            dump_type = 'mmdet.DumpDetResults' if cfg.get('default_scope') == 'mmdet' else 'DumpResults'
            cfg.test_evaluator = [*list_evaluators(cfg), dict(type=dump_type, out_file_path=out)]
        path.parent.mkdir(parents=True, exist_ok=True)
        return
    writing = [evaluator for evaluator in list_evaluators(cfg) if find_scope_and_name(evaluator)[1] == 'IoUMetric']
    if path.suffix or not writing:
        raise ValueError(
            f'--out has to be a file that ends in {", ".join(FORMATS)}, or, for segmentation, a folder for the '
            f'predicted label maps, but got {out}'
        )
    if args.out_item == 'metrics':
        raise ValueError(f'--out-item metrics needs an --out that ends in {", ".join(FORMATS)}, but got {out}')
    path.mkdir(parents=True, exist_ok=True)
    for evaluator in writing:
        evaluator.output_dir = str(path)


def list_evaluators(cfg: Config) -> list[dict]:
    evaluators = cfg.get('test_evaluator') or []
    return evaluators if isinstance(evaluators, list) else [evaluators]


def has_labels(cfg: Config) -> bool:
    """Whether the test set has the labels that its evaluators need, judging by its settings."""
    dataset = cfg.test_dataloader.dataset
    if dataset.get('with_label') is False:
        return False
    if find_scope_and_name(dataset)[1] == 'ImageNet' and dataset.get('split') == 'test':
        return False
    # mmseg's folders.
    prefix = dataset.get('data_prefix')
    segments = any(find_scope_and_name(evaluator)[1] == 'IoUMetric' for evaluator in list_evaluators(cfg))
    return not (segments and isinstance(prefix, dict) and 'seg_map_path' not in prefix)


def apply_no_labels(cfg: Config, args: argparse.Namespace) -> None:
    """Configures the test to write or draw the predictions, since there are no labels for metrics."""
    out = Path(args.out) if args.out else None
    if out and out.is_dir():
        for evaluator in list_evaluators(cfg):
            evaluator.format_only = True
    elif args.out_item == 'pred':
        cfg.test_evaluator = list_evaluators(cfg)[-1:]
    elif (args.show_dir or args.show) and not out:
        cfg.test_evaluator = []
    else:
        raise ValueError(
            f'the test set, {cfg.test_dataloader.dataset.type}, has no labels, so there are no metrics. To write '
            f'the predictions, set --out to a .pkl file, or for label maps to a folder; to draw them, set only '
            f'--show-dir. Got --out {args.out}'
        )


def apply_tta(cfg: Config) -> None:
    """Wraps the model and the transforms of the test for ``--tta``."""
    dataset = cfg.test_dataloader.dataset
    if cfg.get('default_scope') == 'mmpretrain':
        *transforms, pack = dataset.pipeline
        # The image as it is comes first: its annotations are kept.
        flips = [dict(type='mmpretrain.RandomFlip', prob=prob) for prob in (0.0, 1.0)]
        cfg.setdefault('tta_model', dict(type='mmpretrain.AverageClsScoreTTA'))
        cfg.setdefault('tta_pipeline', [*transforms, dict(type='TestTimeAug', transforms=[flips, [pack]])])
    for name in ('tta_model', 'tta_pipeline'):
        if name not in cfg:
            raise ValueError(f'--tta needs {name}, which {cfg.filename} does not set')
    if cfg.get('default_scope') == 'mmdet':
        for evaluator in list_evaluators(cfg):
            if 'segm' in (evaluator.get('metric') or ()):
                evaluator.metric = 'bbox'
    cfg.model = dict(**cfg.tta_model, module=cfg.model)
    dataset.pipeline = cfg.tta_pipeline


@record
def main() -> None:
    args = parse_args()
    if args.out_item and not args.out:
        raise ValueError(f'--out-item {args.out_item} needs --out FILE')
    cfg = read_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or str(Path('work_dirs', Path(args.config).stem))
    if args.amp:
        cfg.test_cfg = {**(cfg.get('test_cfg') or {}), 'fp16': True}
    if args.out:
        apply_out(cfg, args)
    judging = [evaluator for evaluator in list_evaluators(cfg) if not evaluator.get('format_only')]
    if judging and not has_labels(cfg):
        apply_no_labels(cfg, args)
    complete_dataloaders(cfg, pin_memory=not args.no_pin_memory)
    keep_test(cfg, args.checkpoint)
    check_data_layout(cfg, ('test_dataloader',))
    check_own_data(cfg, ('test_dataloader',))
    if args.tta:
        apply_tta(cfg)
    with distributed_run(cfg):
        test(cfg, args)


if __name__ == '__main__':
    main()
