# PVT-L on ImageNet-1k, all but the mixing: the released SMMix code; what it does not show of this size is official PVT's.
_base_ = [
    '../models/pvt-large.py',
    '../datasets/imagenet_bs128_224.py',
    '../schedules/imagenet_bs1024_adamw_300e.py',
    '../default_runtime.py',
]

# Official PVT clips the gradients of its two larger sizes.
optim_wrapper = dict(clip_grad=dict(max_norm=1.0))
