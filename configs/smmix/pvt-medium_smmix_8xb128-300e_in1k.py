# SMMix with PVT-M on ImageNet-1k. Recipe: the released SMMix code, and official PVT where it lacks this size.
_base_ = [
    '../_base_/models/pvt-medium.py',
    '../_base_/datasets/imagenet_bs128_224.py',
    '../_base_/schedules/imagenet_bs1024_adamw_300e.py',
    '../_base_/default_runtime.py',
    '../_base_/methods/smmix.py',
]

model = dict(train_cfg=_base_.mixing)

# Official PVT clips the gradients of its two larger sizes.
optim_wrapper = dict(clip_grad=dict(_delete_=True, max_norm=1.0))
