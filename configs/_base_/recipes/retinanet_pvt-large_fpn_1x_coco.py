# RetinaNet 1x with PVT-L on COCO.
_base_ = './retinanet_pvt-tiny_fpn_1x_coco.py'

# No drop path in the two larger sizes: official PVT.
model = dict(backbone=dict(arch='large', drop_path_rate=0.0))

# As in Mask R-CNN: one image per GPU, and the learning rate divided by 1.4, about the root of 2.
train_dataloader = dict(batch_size=1)

optim_wrapper = dict(optimizer=dict(lr=1e-4 / 1.4))

auto_scale_lr = dict(base_batch_size=8)
