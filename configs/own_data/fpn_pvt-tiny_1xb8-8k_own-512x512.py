# Semantic FPN on images and masks of your own, from pretrained weights. Environment variables name the folder and the
# weights: DATA_ROOT=... CHECKPOINT=... python tools/train.py ...
_base_ = [
    '../_base_/models/fpn_pvt-tiny.py',
    '../_base_/datasets/own_masks_bs8_512x512.py',
    '../_base_/schedules/own_adamw_8k.py',
    '../_base_/segmentation_runtime.py',
]

model = dict(
    backbone=dict(
        init_cfg=dict(
            type='Pretrained', checkpoint='{{$CHECKPOINT:work_dirs/pvt-tiny_smmix_8xb128-300e_in1k/epoch_300.pth}}'
        )
    )
)

default_hooks = dict(checkpoint=dict(interval=800))
