# Semantic FPN with CaiT-XXS-36 on ADE20K, from our SMMix checkpoint. Recipe: official PVT's schedule.
# No figure of SMMix is published for it.
_base_ = [
    '../_base_/models/fpn_pvt-tiny.py',
    '../_base_/models/cait-xxs24_pyramid.py',
    '../_base_/datasets/ade20k_bs2_512x512.py',
    '../_base_/schedules/ade20k_adamw_80k.py',
    '../_base_/segmentation_runtime.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        **(_base_.backbone | dict(arch='xxs36')),
        init_cfg=dict(
            type='Pretrained',
            strict=True,
            # To start from other weights: --cfg-options model.backbone.init_cfg.checkpoint=PATH
            checkpoint='work_dirs/cait-xxs36_smmix_8xb128-300e_in1k/epoch_300.pth',
        ),
    ),
    neck=[
        _base_.pyramid,
        dict(type='mmseg.FPN', in_channels=[192, 192, 192, 192], out_channels=256, num_outs=4),
    ],
)
