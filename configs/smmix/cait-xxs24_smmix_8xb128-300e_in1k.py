# SMMix with CaiT-XXS-24 on ImageNet-1k. The recipe of the released SMMix code, with CaiT's own drop path and layer
# scale, since the released scripts do not show this model.
# The gammas of its layer scale are one-dimensional, and so without decay. Position embeddings decay, as in the released
# SMMix code for all models but DeiT; CaiT's own code keeps them from it.
# CaiT's own code trains for 400 epochs and tests with a crop of the whole image; here 300 and 0.875, as for DeiT.
_base_ = [
    '../_base_/models/cait-xxs24.py',
    '../_base_/datasets/imagenet_bs128_224.py',
    '../_base_/schedules/imagenet_bs1024_adamw_300e.py',
    '../_base_/default_runtime.py',
    '../_base_/methods/smmix.py',
]

model = dict(train_cfg=_base_.mixing)
