# RetinaNet 1x with PVT-L on COCO. Official PVT trains this size in fp16; here in full precision, --amp turns fp16 on.
_base_ = './retinanet_pvt-tiny_fpn_1x_coco.py'

# No drop path in the two larger sizes: official PVT.
model = dict(backbone=dict(arch='large', drop_path_rate=0.0))
