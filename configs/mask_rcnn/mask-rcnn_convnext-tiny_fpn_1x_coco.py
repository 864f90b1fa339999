# Mask R-CNN 1x with ConvNeXt-T on COCO, from our SMMix checkpoint. Recipe: mmdet's 1x schedule of Swin-T.
# No figure of SMMix is published for it.
_base_ = [
    '../_base_/models/mask-rcnn_pvt-tiny_fpn.py',
    '../_base_/datasets/coco_instance_bs2_1333x800.py',
    '../_base_/schedules/coco_adamw-swin_12e.py',
    '../_base_/detection_runtime.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.ConvNeXt',
        arch='tiny',
        drop_path_rate=0.1,
        out_indices=(0, 1, 2, 3),
        gap_before_final_norm=False,
        # The norms of the first three maps, which a classifier does not have, are new.
        init_cfg=dict(
            type='Pretrained',
            strict=True,
            fresh=('norm0', 'norm1', 'norm2'),
            # To start from other weights: --cfg-options model.backbone.init_cfg.checkpoint=PATH
            checkpoint='work_dirs/convnext-tiny_smmix_32xb128-300e_in1k/epoch_300.pth',
        ),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
