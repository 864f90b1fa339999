"""A thousand steps, with everything that could keep something from step to step: memory stays what it is."""

import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import psutil
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from torch.utils.data import Dataset

BATCH, STEPS, EPOCH, WARM_UP, EVERY = 8, 1000, 100, 300, 50
AUGMENTS = [
    dict(type='mmpretrain.Mixup', alpha=0.8),
    dict(type='mmpretrain.CutMix', alpha=1.0),
    dict(type='smmix_mm.SMMix'),
    dict(type='smmix_mm.SMMix', motivated_by='teacher'),
    dict(type='smmix_mm.TransMix'),
    dict(type='smmix_mm.TokenMix', patch_size=8, extra_tokens=2),
    dict(type='smmix_mm.AutoMix'),
]


class Noise(Dataset):
    def __len__(self):
        return BATCH * EPOCH

    def __getitem__(self, index):
        image = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
        return dict(inputs=image, data_samples=DataSample().set_gt_label(index % 5))


class MemoryHook(Hook):
    """Notes the memory of the process in bytes, and the length of the longest history of a logged value."""

    def __init__(self):
        self.resident, self.history = {}, {}

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        step = runner.iter + 1
        if step % EVERY == 0:
            self.resident[step] = psutil.Process(os.getpid()).memory_info().rss
            self.history[step] = max(len(history.data[0]) for history in runner.message_hub.log_scalars.values())


def train(work_dir: str) -> MemoryHook:
    """In a process of its own, where no earlier test has left memory to be used again."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from conftest import backbone_cfg, head_cfg

    from smmix_mm.registry import MODELS

    torch.set_num_threads(1)
    DATASETS.register_module(name='Noise', module=Noise)
    parts = dict(backbone=backbone_cfg('vit', drop_path_rate=0.1), head=head_cfg('vit'))
    hook = MemoryHook()
    runner = Runner(
        model=dict(
            type='smmix_mm.MixingClassifier',
            teacher=MODELS.build(dict(type='mmpretrain.ImageClassifier', **parts)),
            train_cfg=dict(augments=AUGMENTS),
            **parts,
        ),
        work_dir=work_dir,
        train_dataloader=dict(
            batch_size=BATCH, num_workers=0, dataset=dict(type='Noise'), sampler=dict(type='DefaultSampler')
        ),
        train_cfg=dict(type='smmix_mm.EpochBasedTrainLoop', max_epochs=STEPS // EPOCH),
        optim_wrapper=dict(type='smmix_mm.AmpOptimWrapper', optimizer=dict(type='AdamW', lr=1e-3)),
        custom_hooks=[dict(type='EMAHook'), hook],
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=10),
            checkpoint=dict(type='smmix_mm.CheckpointHook', by_epoch=False, interval=250, max_keep_ckpts=1),
            finite_loss=dict(type='smmix_mm.FiniteLossHook', action='skip'),
            readable_images=dict(type='smmix_mm.ReadableImagesHook'),
            log_history=dict(type='smmix_mm.LogHistoryHook', min_length=EPOCH),
        ),
        randomness=dict(seed=0),
        default_scope='mmpretrain',
        log_level='WARNING',
    )
    runner.train()
    return hook


@pytest.mark.slow
def test_memory_is_flat_over_a_thousand_steps(tmp_path):
    """One batch of images kept per step would be 69 MB after the warm-up, one graph many times that."""
    with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool:
        hook = pool.submit(train, str(tmp_path)).result(timeout=600)
    print(json.dumps(dict(resident=hook.resident, history=hook.history)))
    late = {step: value for step, value in hook.resident.items() if step >= WARM_UP}
    assert max(late) == STEPS
    assert max(late.values()) - late[WARM_UP] < 2e6, late
    assert hook.history[STEPS] == EPOCH
