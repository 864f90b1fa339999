# A classifier of images of your own, from pretrained weights. Environment variables name the folder and the weights:
# DATA_ROOT=... CHECKPOINT=... python tools/train.py ...
_base_ = [
    '../_base_/models/pvt-tiny.py',
    '../_base_/datasets/own_folders_bs32_224.py',
    '../_base_/schedules/own_adamw_30e.py',
    '../_base_/default_runtime.py',
    '../_base_/methods/smmix.py',
]

model = dict(
    backbone=dict(
        init_cfg=dict(
            type='Pretrained', checkpoint='{{$CHECKPOINT:work_dirs/pvt-tiny_smmix_8xb128-300e_in1k/epoch_300.pth}}'
        )
    ),
    train_cfg=_base_.mixing,
)
