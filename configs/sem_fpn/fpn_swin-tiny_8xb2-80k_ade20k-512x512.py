# Semantic FPN with Swin-T on ADE20K, from our SMMix checkpoint. Recipe: official PVT's schedule.
# No figure of SMMix is published for it.
_base_ = [
    '../_base_/models/fpn_pvt-tiny.py',
    '../_base_/datasets/ade20k_bs2_512x512.py',
    '../_base_/schedules/ade20k_adamw_80k.py',
    '../_base_/segmentation_runtime.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.SwinTransformer',
        arch='tiny',
        drop_path_rate=0.2,
        out_indices=(0, 1, 2, 3),
        # For images of any size.
        pad_small_map=True,
        # The norms of the first three maps, which a classifier does not have, are new.
        init_cfg=dict(
            type='Pretrained',
            strict=True,
            fresh=('norm0', 'norm1', 'norm2'),
            # To start from other weights: --cfg-options model.backbone.init_cfg.checkpoint=PATH
            checkpoint='work_dirs/swin-tiny_smmix_8xb128-300e_in1k/epoch_300.pth',
        ),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
