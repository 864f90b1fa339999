# Mask R-CNN 1x with ResNet-50 on COCO, from our SMMix checkpoint. Recipe: mmdet's of that model.
# No figure of SMMix is published for it.
_base_ = [
    '../_base_/models/mask-rcnn_pvt-tiny_fpn.py',
    '../_base_/datasets/coco_instance_bs2_1333x800.py',
    '../_base_/schedules/coco_sgd_12e.py',
    '../_base_/detection_runtime.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.ResNet',
        depth=50,
        out_indices=(0, 1, 2, 3),
        style='pytorch',
        frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=True,
        init_cfg=dict(
            type='Pretrained',
            strict=True,
            # To start from other weights: --cfg-options model.backbone.init_cfg.checkpoint=PATH
            checkpoint='work_dirs/resnet50_smmix_8xb32-100e_in1k/epoch_100.pth',
        ),
    ),
    neck=dict(in_channels=[256, 512, 1024, 2048]),
)
