# Mask R-CNN on images of your own with annotations in COCO's format, from pretrained weights. Environment variables
# name the folder and the weights: DATA_ROOT=... CHECKPOINT=... python tools/train.py ...
_base_ = [
    '../_base_/models/mask-rcnn_pvt-tiny_fpn.py',
    '../_base_/datasets/own_instance_bs2_1333x800.py',
    '../_base_/schedules/own_adamw_12e.py',
    '../_base_/detection_runtime.py',
]

model = dict(
    backbone=dict(
        init_cfg=dict(
            type='Pretrained', checkpoint='{{$CHECKPOINT:work_dirs/pvt-tiny_smmix_8xb128-300e_in1k/epoch_300.pth}}'
        )
    )
)
