# Mask R-CNN 1x with PVT-L on COCO: official PVT.
_base_ = [
    '../_base_/models/mask-rcnn_pvt-tiny_fpn.py',
    '../_base_/datasets/coco_instance_bs2_1333x800.py',
    '../_base_/schedules/coco_adamw_12e.py',
    '../_base_/detection_runtime.py',
]

model = dict(
    backbone=dict(
        arch='large',
        # As in official PVT, the two larger sizes have no drop path.
        drop_path_rate=0.0,
        # To start from other weights: --cfg-options model.backbone.init_cfg.checkpoint=PATH
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/pvt-large_smmix_8xb128-300e_in1k/epoch_300.pth'),
    )
)

# Official PVT trains this size with one image per GPU and divides the learning rate by 1.4, about the root of 2.
train_dataloader = dict(batch_size=1)

optim_wrapper = dict(optimizer=dict(lr=2e-4 / 1.4))

auto_scale_lr = dict(base_batch_size=8)
