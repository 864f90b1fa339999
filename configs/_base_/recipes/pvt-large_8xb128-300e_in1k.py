# PVT-L on ImageNet-1k, all but the mixing: the released SMMix code, and official PVT where it does not show this size.
_base_ = [
    '../models/pvt-large.py',
    '../datasets/imagenet_bs128_224.py',
    '../schedules/imagenet_bs1024_adamw_300e.py',
    '../default_runtime.py',
]

# Official PVT clips the gradients of its two larger sizes.
optim_wrapper = dict(clip_grad=dict(_delete_=True, max_norm=1.0))
