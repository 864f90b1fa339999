# Segmentation with the backbone of smmix_1xb32-8e_digit-scenes.py, on the data and the schedule of the
# demo. FAMILY names the model: vit, cait, swin, resnet or convnext.
_base_ = [
    '../_base_/models/{{$FAMILY:vit}}-mini_family.py',
    '../_base_/models/fpn_pvt-mini.py',
    '../_base_/datasets/digit_scenes_bs8_128x128.py',
    '../_base_/schedules/digit_scenes_segmentation_300.py',
    '../_base_/segmentation_runtime.py',
]

work_dir = 'work_dirs/fpn_1xb8-300_digit-scenes-128x128_{{$FAMILY:vit}}-mini'

model = dict(
    backbone=dict(
        _delete_=True,
        **(_base_.family.backbone | _base_.family.maps),
        init_cfg=dict(
            type='Pretrained',
            strict=True,
            fresh=_base_.family.fresh,
            # To start from other weights: --cfg-options model.backbone.init_cfg.checkpoint=PATH
            checkpoint='work_dirs/{{$FAMILY:vit}}-mini_smmix_1xb32-8e_digit-scenes/epoch_8.pth',
        ),
    ),
    neck=[
        *_base_.family.pyramid,
        dict(
            type='mmseg.FPN',
            in_channels=_base_.family.channels,
            out_channels=128,
            num_outs=len(_base_.family.channels),
        ),
    ],
    decode_head=dict(
        in_channels=[128] * len(_base_.family.channels),
        in_index=list(range(len(_base_.family.channels))),
        feature_strides=[4, 8, 16, 32][: len(_base_.family.channels)],
    ),
)

default_hooks = dict(checkpoint=dict(interval=300, max_keep_ckpts=1, save_best=None))
