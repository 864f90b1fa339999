# Mask R-CNN 1x with PVT-L on COCO.
_base_ = './mask-rcnn_pvt-tiny_fpn_1x_coco.py'

# No drop path in the two larger sizes: official PVT.
model = dict(backbone=dict(arch='large', drop_path_rate=0.0))

# Official PVT trains this size with one image per GPU and divides the learning rate by 1.4, about the root of 2.
train_dataloader = dict(batch_size=1)

optim_wrapper = dict(optimizer=dict(lr=2e-4 / 1.4))

auto_scale_lr = dict(base_batch_size=8)
