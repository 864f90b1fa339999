# Mask R-CNN 1x with PVT-M on COCO.
_base_ = './mask-rcnn_pvt-tiny_fpn_1x_coco.py'

# No drop path in the two larger sizes: official PVT.
model = dict(backbone=dict(arch='medium', drop_path_rate=0.0))
