# PVT-T on ImageNet-1k, all but the mixing: the released SMMix code.
_base_ = [
    '../models/pvt-tiny.py',
    '../datasets/imagenet_bs128_224.py',
    '../schedules/imagenet_bs1024_adamw_300e.py',
    '../default_runtime.py',
]
