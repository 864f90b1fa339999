"""The small detector and the small segmentor learn a handful of scenes by heart, through the whole pipeline."""

from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.runner import Runner

ROOT = Path(__file__).resolve().parents[2]
DETECTOR = 'configs/mask_rcnn/mask-rcnn_pvt-mini-scratch_fpn_1xb8-3e_digit-scenes.py'
SEGMENTOR = 'configs/sem_fpn/fpn_pvt-mini-scratch_1xb8-300_digit-scenes-128x128.py'
SIZES = dict(train=4, val=1)


def learn_by_heart(config: str, folder: Path, iterations: int, learning_rate: float) -> tuple[dict, dict]:
    """Scores on the pictures that are trained on, before and after."""
    cfg = Config.fromfile(ROOT / config)
    cfg.work_dir = str(folder / 'run')
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.update(data_root=str(folder / 'data'), split='train', sizes=SIZES)
        loader.update(batch_size=4, num_workers=0, persistent_workers=False)
    cfg.train_dataloader.sampler = dict(type='InfiniteSampler')
    if 'ann_file' in cfg.val_evaluator:
        cfg.val_evaluator.ann_file = str(folder / 'data/annotations/instances_train.json')
    # The same crop each time: what is learnt is what is asked for.
    cfg.train_dataloader.dataset.pipeline = [
        transform
        for transform in cfg.train_dataloader.dataset.pipeline
        if not transform.type.endswith(('RandomResize', 'RandomCrop', 'PhotoMetricDistortion'))
    ]
    cfg.optim_wrapper.optimizer.lr = learning_rate
    cfg.param_scheduler = [dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=20)]
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=iterations, val_interval=iterations + 1)
    cfg.log_processor = dict(by_epoch=False)
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', by_epoch=False, interval=iterations)
    cfg.default_hooks.logger.interval = 20
    cfg.test_dataloader = cfg.test_cfg = cfg.test_evaluator = None
    runner = Runner.from_cfg(cfg)
    untrained = runner.val()
    runner.train()
    return untrained, runner.val()


@pytest.mark.slow
def test_detector(tmp_path):
    before, after = learn_by_heart(DETECTOR, tmp_path, iterations=120, learning_rate=1e-3)
    assert before['coco/bbox_mAP'] < 0.05
    assert after['coco/bbox_mAP'] > 0.6
    assert after['coco/segm_mAP'] > 0.6


@pytest.mark.slow
def test_segmentor(tmp_path):
    before, after = learn_by_heart(SEGMENTOR, tmp_path, iterations=80, learning_rate=1e-3)
    assert before['mIoU'] < 15
    assert after['mIoU'] > 60
