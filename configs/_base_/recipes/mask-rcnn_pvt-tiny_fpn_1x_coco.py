# Mask R-CNN 1x with PVT-T on COCO, all but the weights that the backbone starts from: official PVT.
_base_ = [
    '../models/mask-rcnn_pvt-tiny_fpn.py',
    '../datasets/coco_instance_bs2_1333x800.py',
    '../schedules/coco_adamw_12e.py',
    '../detection_runtime.py',
]
