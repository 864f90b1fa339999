# RetinaNet 1x with PVT-S on COCO.
_base_ = './retinanet_pvt-tiny_fpn_1x_coco.py'

model = dict(backbone=dict(arch='small'))
