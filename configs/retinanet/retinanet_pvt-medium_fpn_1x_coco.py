# RetinaNet 1x with PVT-M on COCO: official PVT.
_base_ = [
    '../_base_/models/retinanet_pvt-tiny_fpn.py',
    '../_base_/datasets/coco_detection_bs2_1333x800.py',
    '../_base_/schedules/coco_adamw_12e.py',
    '../_base_/detection_runtime.py',
]

model = dict(
    backbone=dict(
        arch='medium',
        # As in official PVT, the two larger sizes have no drop path.
        drop_path_rate=0.0,
        # To start from other weights: --cfg-options model.backbone.init_cfg.checkpoint=PATH
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/pvt-medium_smmix_8xb128-300e_in1k/epoch_300.pth'),
    )
)

# Half of Mask R-CNN's learning rate.
optim_wrapper = dict(optimizer=dict(lr=1e-4))
