# Semantic FPN with ResNet-50 on ADE20K, from our SMMix checkpoint. Recipe: mmseg's optimiser.
# No figure of SMMix is published for it.
_base_ = [
    '../_base_/models/fpn_pvt-tiny.py',
    '../_base_/datasets/ade20k_bs2_512x512.py',
    '../_base_/schedules/ade20k_sgd_80k.py',
    '../_base_/segmentation_runtime.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.ResNet',
        depth=50,
        out_indices=(0, 1, 2, 3),
        style='pytorch',
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        init_cfg=dict(
            type='Pretrained',
            strict=True,
            # To start from other weights: --cfg-options model.backbone.init_cfg.checkpoint=PATH
            checkpoint='work_dirs/resnet50_smmix_8xb32-100e_in1k/epoch_100.pth',
        ),
    ),
    neck=dict(in_channels=[256, 512, 1024, 2048]),
)
