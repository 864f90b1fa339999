# 300 iterations, about two minutes on one core.
_base_ = './coco_adamw_12e.py'

optim_wrapper = dict(optimizer=dict(lr=1e-3))

param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=25),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=False, begin=25, end=300),
]

train_cfg = dict(max_epochs=3, val_interval=3)

auto_scale_lr = dict(base_batch_size=8)
