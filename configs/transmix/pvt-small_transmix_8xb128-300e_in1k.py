# TransMix with PVT-S on ImageNet-1k. Recipe: the released SMMix code.
_base_ = [
    '../_base_/models/pvt-small.py',
    '../_base_/datasets/imagenet_bs128_224.py',
    '../_base_/schedules/imagenet_bs1024_adamw_300e.py',
    '../_base_/default_runtime.py',
    '../_base_/methods/transmix.py',
]

model = dict(train_cfg=_base_.mixing)
