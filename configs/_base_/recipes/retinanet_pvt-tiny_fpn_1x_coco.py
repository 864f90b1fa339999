# RetinaNet 1x with PVT-T on COCO, all but the weights that the backbone starts from: official PVT.
_base_ = [
    '../models/retinanet_pvt-tiny_fpn.py',
    '../datasets/coco_detection_bs2_1333x800.py',
    '../schedules/coco_adamw_12e.py',
    '../detection_runtime.py',
]

# Half of Mask R-CNN's.
optim_wrapper = dict(optimizer=dict(lr=1e-4))
