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

from smmix_mm.checkpoint import check_fit, find_weights, hand_on, read_checkpoint
from smmix_mm.datasets.layout import check_data_layout
from smmix_mm.datasets.own_data import check_own_data, complete_own_data
from smmix_mm.engine import build_runner, complete_dataloaders, distributed_run
from smmix_mm.models.pretrained import TRAINING_ONLY
from smmix_mm.visualization import SavePictures

# The formats of mmengine.fileio.
FORMATS = ('.json', '.yaml', '.yml', '.pkl', '.pickle')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--work-dir', help='folder for the log; default: work_dirs/<name of the config>')
    parser.add_argument(
        '--out',
        help='write the metrics to this .json, .yaml or .pkl file. If it is a folder, write the label maps predicted '
        'by a segmentor there, as PNG. For images without labels, write the predictions of a classifier to a .pkl file',
    )
    parser.add_argument(
        '--show-dir',
        type=Path,
        help='save pictures of the predictions in this folder, under the names of the images. Objects are drawn if '
        'their score is above default_hooks.visualization.score_thr (default: 0.3). Of several processes only the '
        'first saves pictures',
    )
    parser.add_argument('--amp', action='store_true', help='test in automatic mixed precision')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='override settings: key=value ...')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def test(cfg: Config, args: argparse.Namespace) -> None:
    """Tests the model, and keeps no reference to it."""
    runner = build_runner(cfg)
    if '://' not in args.checkpoint:
        content = read_checkpoint(args.checkpoint)
        check_fit(runner.model, find_weights(content, args.checkpoint), args.checkpoint, TRAINING_ONLY)
        hand_on(args.checkpoint, content)
    if args.show_dir:
        score_thr = (cfg.get('default_hooks', {}).get('visualization') or {}).get('score_thr')
        options = {} if score_thr is None else dict(pred_score_thr=score_thr)
        runner.register_hook(SavePictures(args.show_dir, **options), priority='LOW')
    metrics = runner.test()
    # Without labels there are no metrics, and the predictions are in the file already.
    if args.out and metrics and not Path(args.out).is_dir() and is_main_process():
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


def apply_out(cfg: Config, out: str) -> None:
    """Checks ``--out`` before the test starts; a folder gets the predictions of mmseg."""
    path = Path(out)
    if path.suffix in FORMATS and not path.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        return
    writing = [evaluator for evaluator in list_evaluators(cfg) if str(evaluator.get('type')).endswith('IoUMetric')]
    if path.suffix or not writing:
        raise ValueError(
            f'--out has to be a file that ends in {", ".join(FORMATS)}, or, for segmentation, a folder for the '
            f'predicted label maps, but got {out}'
        )
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
    if str(dataset.get('type')).endswith('ImageNet') and dataset.get('split') == 'test':
        return False
    # mmseg's folders.
    prefix = dataset.get('data_prefix')
    segments = any(str(evaluator.get('type')).endswith('IoUMetric') for evaluator in list_evaluators(cfg))
    return not (segments and isinstance(prefix, dict) and 'seg_map_path' not in prefix)


def apply_no_labels(cfg: Config, args: argparse.Namespace) -> None:
    """Configures the test to write or draw the predictions, since there are no labels for metrics."""
    out = Path(args.out) if args.out else None
    if out and out.is_dir():
        for evaluator in list_evaluators(cfg):
            evaluator.format_only = True
    elif out and out.suffix in ('.pkl', '.pickle'):
        cfg.test_evaluator = dict(type='DumpResults', out_file_path=args.out)
    elif args.show_dir and not out:
        cfg.test_evaluator = []
    else:
        raise ValueError(
            f'the test set, {cfg.test_dataloader.dataset.type}, has no labels, so there are no metrics. To write '
            f'the predictions, set --out to a .pkl file, or for label maps to a folder; to draw them, set only '
            f'--show-dir. Got --out {args.out}'
        )


@record
def main() -> None:
    args = parse_args()
    cfg = Config.fromfile(args.config)
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or str(Path('work_dirs', Path(args.config).stem))
    cfg.load_from = args.checkpoint
    cfg.resume = False
    # Checkpoints are not sharded, so the model is tested unsharded, however it was trained.
    if cfg.get('runner_type') == 'FlexibleRunner':
        cfg.pop('runner_type')
    if args.amp:
        cfg.test_cfg = {**(cfg.get('test_cfg') or {}), 'fp16': True}
    complete_own_data(cfg)
    if args.out:
        apply_out(cfg, args.out)
    judging = [evaluator for evaluator in list_evaluators(cfg) if not evaluator.get('format_only')]
    if judging and not has_labels(cfg):
        apply_no_labels(cfg, args)
    complete_dataloaders(cfg)
    # Builds only the parts that the test needs.
    cfg.train_dataloader = cfg.train_cfg = cfg.optim_wrapper = cfg.param_scheduler = None
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    check_data_layout(cfg, ('test_dataloader',))
    check_own_data(cfg, ('test_dataloader',))
    with distributed_run(cfg):
        test(cfg, args)


if __name__ == '__main__':
    main()
