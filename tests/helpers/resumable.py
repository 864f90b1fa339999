"""A small training as real processes, which tests kill, warn and resume, and what is compared of it."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from processes import free_port, start

from smmix_mm.compat import CPU_FLOAT16

# 7 batches of 8 in one process, 4 in each of two.
IMAGES = 56
EPOCHS = 6


def write_images(folder: Path, count: int = IMAGES, classes: int = 4) -> Path:
    rng = np.random.default_rng(0)
    for index in range(count):
        path = folder / f'class{index % classes}' / f'{index}.jpg'
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), rng.integers(0, 256, (40, 44, 3), dtype=np.uint8))
    return folder


def train_pipeline() -> list[dict]:
    """Random transforms that draw from Python's, NumPy's and torch's generators, some repeatedly."""
    return [
        dict(type='smmix_mm.LoadImage'),
        dict(type='smmix_mm.RandomResizedCrop', scale=32),
        dict(type='mmpretrain.RandomFlip', prob=0.5, direction='horizontal'),
        dict(
            type='smmix_mm.RandAugment',
            policies='timm_increasing',
            num_policies=2,
            total_level=10,
            magnitude_level=9,
            magnitude_std=0.5,
        ),
        dict(type='mmpretrain.RandomErasing', erase_prob=0.5, mode='rand'),
        dict(type='mmpretrain.PackInputs'),
    ]


def small_config(folder: Path, by_epoch: bool = True) -> Config:
    """SMMix and Mixup, dropout and drop path, averaged weights, accumulated gradients, workers, one checkpoint kept.

    Three gradients are accumulated, which divides neither the epochs nor the intervals of checkpoints.
    """
    backbone = dict(
        type='mmpretrain.VisionTransformer',
        arch=dict(embed_dims=32, num_layers=3, num_heads=2, feedforward_channels=64),
        patch_size=8,
        img_size=32,
        drop_path_rate=0.3,
        drop_rate=0.1,
    )
    val_pipeline = [
        dict(type='smmix_mm.LoadImage'),
        dict(type='mmpretrain.ResizeEdge', scale=32),
        dict(type='mmpretrain.CenterCrop', crop_size=32),
        dict(type='mmpretrain.PackInputs'),
    ]
    optim_wrapper = dict(
        optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05), accumulative_counts=3, clip_grad=dict(max_norm=1.0)
    )
    if by_epoch:
        train_cfg = dict(type='smmix_mm.EpochBasedTrainLoop', max_epochs=EPOCHS, val_interval=1)
        sampler = dict(type='DefaultSampler', shuffle=True)
        wrapper = dict(type='OptimWrapper', **optim_wrapper)
    else:
        train_cfg = dict(type='smmix_mm.IterBasedTrainLoop', max_iters=40, val_interval=6)
        sampler = dict(type='InfiniteSampler', shuffle=True)
        # Its loss scale is doubled all the time, so a resumed run needs to know it.
        scale = dict(init_scale=2.0**10, growth_interval=2)
        dtype = 'float16' if CPU_FLOAT16 else 'bfloat16'
        wrapper = dict(type='smmix_mm.AmpOptimWrapper', dtype=dtype, loss_scale=scale, **optim_wrapper)
    return Config(
        dict(
            default_scope='mmpretrain',
            model=dict(
                type='smmix_mm.MixingClassifier',
                backbone=backbone,
                head=dict(
                    type='mmpretrain.VisionTransformerClsHead',
                    num_classes=4,
                    in_channels=32,
                    loss=dict(type='mmpretrain.LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
                ),
                train_cfg=dict(augments=[dict(type='mmpretrain.Mixup', alpha=0.8), dict(type='smmix_mm.SMMix')]),
            ),
            data_preprocessor=dict(num_classes=4, mean=[127.5] * 3, std=[60.0] * 3),
            train_dataloader=dict(
                batch_size=8,
                num_workers=2,
                sampler=sampler,
                dataset=dict(
                    type='mmpretrain.CustomDataset', data_root=str(folder / 'train'), pipeline=train_pipeline()
                ),
            ),
            val_dataloader=dict(
                batch_size=1,
                num_workers=1,
                sampler=dict(type='DefaultSampler', shuffle=False),
                dataset=dict(type='mmpretrain.CustomDataset', data_root=str(folder / 'val'), pipeline=val_pipeline),
            ),
            val_evaluator=dict(type='mmpretrain.Accuracy', topk=(1,)),
            optim_wrapper=wrapper,
            param_scheduler=[
                dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=10),
                dict(type='CosineAnnealingLR', by_epoch=by_epoch, begin=2 if by_epoch else 10, end=EPOCHS * 7),
            ],
            train_cfg=train_cfg,
            val_cfg=dict(),
            default_hooks=dict(
                logger=dict(type='LoggerHook', interval=1),
                checkpoint=dict(
                    type='smmix_mm.CheckpointHook', by_epoch=False, interval=4, max_keep_ckpts=1, save_best='auto'
                ),
            ),
            custom_hooks=[dict(type='EMAHook', momentum=0.1)],
            log_processor=dict(by_epoch=by_epoch),
            env_cfg=dict(mp_cfg=dict(mp_start_method='fork', opencv_num_threads=1)),
            randomness=dict(seed=3),
        )
    )


class Training:
    """``tools/train.py`` in one process or several, all in one process group."""

    def __init__(self, config: Path, work_dir: Path, ranks: int = 1) -> None:
        self.config = config
        self.work_dir = work_dir
        self.ranks = ranks
        self.log = work_dir.with_suffix('.log')
        self.processes: list[BaseProcess] = []

    def start(self, *args: str) -> 'Training':
        arguments, environment = [self.config, '--work-dir', self.work_dir, *args], {}
        if self.ranks > 1:
            arguments += ['--launcher', 'pytorch']
            environment = dict(WORLD_SIZE=str(self.ranks), MASTER_ADDR='127.0.0.1', MASTER_PORT=str(free_port()))
        self.processes = []
        for rank in range(self.ranks):
            self.processes.append(
                start(
                    'train.py',
                    *arguments,
                    outputs=[self.log, self.log],
                    group=self.group if self.processes else 0,
                    RANK=str(rank),
                    LOCAL_RANK=str(rank),
                    **environment,
                )
            )
        return self

    @property
    def group(self) -> int:
        return self.processes[0].pid

    def signal(self, number: int) -> None:
        """To all processes and their workers, as a scheduler does."""
        os.killpg(self.group, number)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)
        self.wait()

    def is_running(self) -> bool:
        return all(process.is_alive() for process in self.processes)

    def wait(self, timeout: float = 180) -> list[int]:
        """The exit statuses."""
        end = time.monotonic() + timeout
        for process in self.processes:
            process.join(max(0.1, end - time.monotonic()))
        if any(process.is_alive() for process in self.processes):
            os.killpg(self.group, signal.SIGKILL)
            raise TimeoutError(f'{self.config} ran for {timeout} s:\n{self.log.read_text()[-3000:]}')
        return [process.exitcode for process in self.processes]

    def finish(self) -> 'Training':
        statuses = self.wait()
        assert statuses == [0] * self.ranks, self.log.read_text()[-5000:]
        return self

    def rows(self) -> list[dict]:
        """What the log holds; a line that a kill cut off is left out."""
        files = sorted(self.work_dir.glob('*/vis_data/scalars.json'))
        lines = [line for file in files for line in file.read_text().splitlines()]
        return [json.loads(line) for line in lines if line.startswith('{') and line.endswith('}')]

    def await_rows(self, count: int) -> None:
        while self.is_running() and len(self.rows()) < count:
            time.sleep(0.002)

    def await_writing(self, count: int) -> None:
        """Until a checkpoint, or what points at it, is being written for the ``count``-th time."""
        for left in reversed(range(count)):
            while self.is_running() and not self.is_writing():
                pass
            while left and self.is_running() and self.is_writing():
                pass

    def is_writing(self) -> bool:
        try:
            return any(entry.name.endswith('.unfinished') for entry in os.scandir(self.work_dir))
        except FileNotFoundError:
            return False

    def checkpoints(self) -> set[str]:
        return {path.name for path in self.work_dir.iterdir() if path.is_file() and path.suffix != '.py'}

    def outcome(self) -> dict[str, Any]:
        """All that a resumed run has to share with one that was never interrupted, flat, by name."""
        last = Path((self.work_dir / 'last_checkpoint').read_text())
        content = torch.load(last, map_location='cpu', weights_only=False)
        flat = dict(flatten(content, last.name))
        scalars = {}
        for row in self.rows():
            kind = 'val' if 'accuracy/top1' in row else 'train'
            scalars |= {f'log/{kind}/{row["step"]}/{name}': value for name, value in row.items()}
        return {name: value for name, value in (flat | scalars).items() if not is_own(name)}


def is_own(name: str) -> bool:
    """Whether it is that of one start: times, paths, the name of the run, and the commit of the repository."""
    last = name.split('/')[-1]
    own = ('cfg', 'experiment_name', 'last_ckpt', 'best_ckpt', 'eta', 'mmengine_version')
    return 'time' in name or last in own or 'memory' in last


def flatten(content: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(content, HistoryBuffer):
        content = content.data
    if isinstance(content, dict):
        for key, value in content.items():
            yield from flatten(value, f'{name}/{key}')
    elif isinstance(content, (list, tuple)):
        for index, value in enumerate(content):
            yield from flatten(value, f'{name}/{index}')
    else:
        yield name, content


def differences(left: dict[str, Any], right: dict[str, Any]) -> list[str]:
    """Names of what is not the same bit by bit."""
    missing = left.keys() ^ right.keys()
    return sorted(missing) + [name for name in left if name not in missing and not is_same(left[name], right[name])]


def is_same(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, np.ndarray):
        return np.array_equal(left, right)
    return left == right
