# Mask R-CNN 1x with DeiT-T on COCO, from our SMMix checkpoint. Recipe: mmdet's 1x schedule of Swin-T.
# No figure of SMMix is published for it.
_base_ = [
    '../_base_/models/mask-rcnn_pvt-tiny_fpn.py',
    '../_base_/models/deit-tiny_pyramid.py',
    '../_base_/datasets/coco_instance_bs2_1333x800.py',
    '../_base_/schedules/coco_adamw-swin_12e.py',
    '../_base_/detection_runtime.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        **_base_.backbone,
        init_cfg=dict(
            type='Pretrained',
            strict=True,
            # To start from other weights: --cfg-options model.backbone.init_cfg.checkpoint=PATH
            checkpoint='work_dirs/deit-tiny_smmix_8xb128-300e_in1k/epoch_300.pth',
        ),
    ),
    neck=[
        _base_.pyramid,
        dict(type='mmdet.FPN', in_channels=[192, 192, 192, 192], out_channels=256, num_outs=5),
    ],
)
