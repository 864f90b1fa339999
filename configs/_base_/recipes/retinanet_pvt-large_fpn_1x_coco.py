# RetinaNet 1x with PVT-L on COCO.
_base_ = './retinanet_pvt-tiny_fpn_1x_coco.py'

# No drop path in the two larger sizes: official PVT.
model = dict(backbone=dict(arch='large', drop_path_rate=0.0))
