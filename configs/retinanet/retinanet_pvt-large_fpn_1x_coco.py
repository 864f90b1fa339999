# RetinaNet 1x with PVT-L on COCO: official PVT. Official PVT trains this size in fp16, this config in full
# precision; --amp enables fp16.
_base_ = [
    '../_base_/models/retinanet_pvt-tiny_fpn.py',
    '../_base_/datasets/coco_detection_bs2_1333x800.py',
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

# Half of Mask R-CNN's learning rate.
optim_wrapper = dict(optimizer=dict(lr=1e-4))
