"""Runs of a tiny model in this process, for tests of the train loops and what belongs to them."""

import os
import random
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATA_SAMPLERS, DATASETS, HOOKS, METRICS, MODELS
from mmengine.runner import FlexibleRunner, Runner
from resumable import flatten, is_own
from torch import nn
from torch.utils.data import Dataset, RandomSampler

SAMPLES = 12


@pytest.fixture
def registered(monkeypatch):
    """The parts below, while these tests run."""
    # It asks compilers for their versions, again in each run.
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    registries = {
        MODELS: [TinyModel],
        DATASETS: [Points],
        DATA_SAMPLERS: [GlobalSampler],
        METRICS: [Mean],
        HOOKS: [SignalHook, StopHook],
    }
    for registry, parts in registries.items():
        for part in parts:
            registry.register_module(module=part)
    yield
    for registry, parts in registries.items():
        for part in parts:
            registry.module_dict.pop(part.__name__)


class Points(Dataset):
    """Points with noise from all three global generators."""

    metainfo = dict(classes=('point',))

    def __init__(self, count=SAMPLES):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        noise = random.random() + np.random.rand() + torch.rand(3)
        return dict(inputs=torch.full((3,), float(index)) + noise)


class GlobalSampler(RandomSampler):
    """torch's own, which knows no epochs and draws from the global generator."""

    def __init__(self, dataset, seed=None):
        super().__init__(dataset)


class TinyModel(BaseModel):
    """Dropout, and noise from the other two generators."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1))

    def forward(self, inputs, mode='tensor'):
        out = self.layers(torch.stack(inputs))
        if mode == 'predict':
            return [float(value) for value in out]
        return dict(loss=(out - random.random() - np.random.rand()).square().mean())


class Mean(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.extend(data_samples)

    def compute_metrics(self, results):
        return dict(mean=float(np.mean(results)), acc=random.random())


class SignalHook(Hook):
    """Sends SIGTERM to its own process at a point of the run."""

    def __init__(self, stage, number):
        self.stage = stage
        self.number = number
        self.passes = 0

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if self.stage == 'train' and runner.iter + 1 == self.number:
            os.kill(os.getpid(), signal.SIGTERM)

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.passes = 0 if runner.iter != self.number else self.passes + (batch_idx == 0)
        # In the first pass over the data, or in the one that mmpretrain's EMAHook adds.
        wanted = {'val': 1, 'val again': 2}.get(self.stage)
        if runner.iter == self.number and self.passes == wanted:
            os.kill(os.getpid(), signal.SIGTERM)

    def before_save_checkpoint(self, runner, checkpoint):
        if self.stage == 'save' and checkpoint['meta']['iter'] == self.number:
            os.kill(os.getpid(), signal.SIGTERM)


class StopHook(Hook):
    def __init__(self, number):
        self.number = number

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        runner.train_loop.stop_training |= runner.iter + 1 == self.number


NAMES = iter(range(10**6))


def build(work_dir, by_epoch=True, flexible=False, hooks=(), seed=5, samples=SAMPLES, sampler=None, **settings):
    """A run of 3 epochs of 4 batches, with a checkpoint after every step."""
    sampler = sampler or ('DefaultSampler' if by_epoch else 'InfiniteSampler')
    if by_epoch:
        train_cfg = dict(type='smmix_mm.EpochBasedTrainLoop', max_epochs=3, val_interval=1)
    else:
        train_cfg = dict(type='smmix_mm.IterBasedTrainLoop', max_iters=12, val_interval=3)
    checkpoint = dict(type='smmix_mm.CheckpointHook', by_epoch=False, interval=1, save_best='mean', rule='less')
    loader = dict(batch_size=3, num_workers=0)
    cfg = dict(
        model=dict(type='TinyModel'),
        work_dir=str(work_dir),
        experiment_name=f'loop_{next(NAMES)}',
        train_dataloader=dict(dataset=dict(type='Points', count=samples), sampler=dict(type=sampler), **loader),
        val_dataloader=dict(dataset=dict(type='Points'), sampler=dict(type='DefaultSampler', shuffle=False), **loader),
        val_evaluator=dict(type='Mean'),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=0.1), accumulative_counts=3),
        param_scheduler=[
            dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=7),
            dict(type='StepLR', step_size=1, by_epoch=True),
        ],
        train_cfg=train_cfg,
        val_cfg=dict(),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1), checkpoint=checkpoint),
        custom_hooks=[*([] if flexible else [dict(type='EMAHook', momentum=0.2)]), *hooks],
        log_processor=dict(by_epoch=by_epoch),
        randomness=dict(seed=seed),
        log_level='WARNING',
    )
    cfg = Config(cfg)
    cfg.merge_from_dict(settings)
    if flexible:
        cfg.strategy = dict(type='SingleDeviceStrategy')
        cfg.env_cfg = dict(dist_cfg=dict(backend='gloo'))
    return (FlexibleRunner if flexible else Runner).from_cfg(cfg)


def outcome(work_dir, name='iter_12.pth'):
    """What the last checkpoint of a run holds, but times and paths."""
    content = torch.load(Path(work_dir, name), weights_only=False)
    content['message_hub'].pop('resumed_keys')
    return {key: value for key, value in flatten(content, '') if not is_own(key)}
