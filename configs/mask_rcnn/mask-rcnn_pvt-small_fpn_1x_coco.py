# Mask R-CNN 1x with PVT-S on COCO: official PVT.
_base_ = [
    '../_base_/models/mask-rcnn_pvt-tiny_fpn.py',
    '../_base_/datasets/coco_instance_bs2_1333x800.py',
    '../_base_/schedules/coco_adamw_12e.py',
    '../_base_/detection_runtime.py',
]

model = dict(
    backbone=dict(
        arch='small',
        # To start from other weights: --cfg-options model.backbone.init_cfg.checkpoint=PATH
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/pvt-small_smmix_8xb128-300e_in1k/epoch_300.pth'),
    )
)
