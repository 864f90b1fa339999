# Semantic FPN with PVT-M on ADE20K: official PVT's, in half the iterations with twice the batch and learning rate.
_base_ = [
    '../_base_/models/fpn_pvt-tiny.py',
    '../_base_/datasets/ade20k_bs2_512x512.py',
    '../_base_/schedules/ade20k_adamw_40k.py',
    '../_base_/segmentation_runtime.py',
]

model = dict(
    backbone=dict(
        arch='medium',
        # To start from other weights: --cfg-options model.backbone.init_cfg.checkpoint=PATH
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/pvt-medium_smmix_8xb128-300e_in1k/epoch_300.pth'),
    )
)

train_dataloader = dict(batch_size=4)

default_hooks = dict(checkpoint=dict(interval=4000))
