"""Trains a model of mmpretrain, mmdet or mmseg, depending on the ``default_scope`` of the config."""

import argparse
import os
from pathlib import Path

from mmengine.config import Config, DictAction
from torch.distributed.elastic.multiprocessing.errors import record

from smmix_mm.configs import CONFIGS, FROM_WHEEL
from smmix_mm.datasets.layout import check_data_layout
from smmix_mm.datasets.own_data import check_own_data, complete_own_data
from smmix_mm.engine import build_runner, complete_dataloaders, distributed_run
from smmix_mm.resume.start import has_checkpoints, prepare_start
from smmix_mm.resume.work_dir import check_work_dir


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints; default: work_dirs/<name of the config>')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='resume from this checkpoint; without a path, from the latest one in the work directory',
    )
    parser.add_argument('--amp', action='store_true', help='train in automatic mixed precision')
    parser.add_argument('--no-validate', action='store_true', help='do not evaluate during training')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='multiply the learning rate by the actual batch size divided by auto_scale_lr.base_batch_size',
    )
    parser.add_argument('--no-pin-memory', action='store_true', help='turn off pin_memory in all dataloaders')
    parser.add_argument(
        '--no-persistent-workers', action='store_true', help='turn off persistent_workers in all dataloaders'
    )
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='override settings: key=value ...')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def apply_args(cfg: Config, args: argparse.Namespace) -> None:
    """Writes the command line into the config, ``--cfg-options`` first."""
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or str(Path('work_dirs', Path(args.config).stem))
    if args.amp:
        cfg.optim_wrapper.type = 'smmix_mm.AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.auto_scale_lr:
        if not cfg.get('auto_scale_lr', {}).get('base_batch_size'):
            raise ValueError(f'--auto-scale-lr needs auto_scale_lr.base_batch_size, which {args.config} does not set')
        cfg.auto_scale_lr.enable = True
    if args.resume:
        # If there is no checkpoint to resume from yet, the run starts from the weights that its config names.
        cfg.resume = args.resume != 'auto' or has_checkpoints(cfg.work_dir) or not cfg.get('load_from')
        if cfg.resume:
            cfg.load_from = None if args.resume == 'auto' else args.resume
    complete_own_data(cfg)
    complete_dataloaders(cfg, not args.no_pin_memory, not args.no_persistent_workers)


def check_pretrained(cfg: Config) -> None:
    """Refuses missing local checkpoints before the data is read and the model is built."""
    for part in ('model', 'model.backbone', 'model.teacher', 'model.teacher.backbone'):
        settings = cfg
        for step in part.split('.'):
            settings = settings.get(step) or {}
        init_cfgs = settings.get('init_cfg') or []
        for init_cfg in init_cfgs if isinstance(init_cfgs, list) else [init_cfgs]:
            check_exists(init_cfg.get('checkpoint'), f'{part}.init_cfg.checkpoint')


def check_exists(path: str | None, setting: str) -> None:
    if path is None or '://' in path or Path(path).expanduser().is_file():
        return
    # A run's checkpoints are in a folder named after its config.
    name = f'{Path(path).parent.name}.py'
    config = next(CONFIGS.rglob(name), None)
    tool = 'mim train smmix_mm' if FROM_WHEEL else 'python tools/train.py'
    how = f'Pretrain first ({tool} {config.relative_to(CONFIGS.parent)})' if config else 'Pretrain first'
    raise FileNotFoundError(
        f'{setting} is {path}, but there is no such file. {how}, or set another: --cfg-options {setting}=PATH'
    )


def train(cfg: Config) -> None:
    """Trains the model, and keeps no reference to it."""
    runner = build_runner(cfg)
    # The train loops of this package do this themselves; this call covers other loops.
    prepare_start(runner)
    runner.train()


@record
def main() -> None:
    args = parse_args()
    cfg = Config.fromfile(args.config)
    apply_args(cfg, args)
    check_pretrained(cfg)
    loaders = ('train_dataloader', 'val_dataloader')
    check_data_layout(cfg, loaders)
    check_own_data(cfg, loaders)
    check_work_dir(cfg.work_dir)
    with distributed_run(cfg):
        train(cfg)


if __name__ == '__main__':
    main()
