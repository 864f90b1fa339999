# CutMix with CaiT-XXS-24 on ImageNet-1k. The recipe of the released SMMix code, with CaiT's own drop path and layer
# scale, since the released scripts do not contain this model.
# The gammas of the layer scale are one-dimensional, so they do not decay. Position embeddings decay, as in the released
# SMMix code for all models but DeiT; CaiT's own code excludes them.
# CaiT's own code trains for 400 epochs and tests on the whole image; here 300 epochs and a crop of 0.875, as for DeiT.
_base_ = [
    '../_base_/models/cait-xxs24.py',
    '../_base_/datasets/imagenet_bs128_224.py',
    '../_base_/schedules/imagenet_bs1024_adamw_300e.py',
    '../_base_/default_runtime.py',
    '../_base_/methods/cutmix.py',
]

model = dict(train_cfg=_base_.mixing)
