# Semantic FPN with PVT-T on ADE20K: official PVT.
_base_ = [
    '../_base_/models/fpn_pvt-tiny.py',
    '../_base_/datasets/ade20k_bs2_512x512.py',
    '../_base_/schedules/ade20k_adamw_80k.py',
    '../_base_/segmentation_runtime.py',
]

model = dict(
    backbone=dict(
        # To start from other weights: --cfg-options model.backbone.init_cfg.checkpoint=PATH
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/pvt-tiny_smmix_8xb128-300e_in1k/epoch_300.pth'),
    )
)
