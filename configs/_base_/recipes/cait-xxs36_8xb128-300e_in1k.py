# CaiT-XXS-36 on ImageNet-1k, all but the mixing: the released SMMix code's recipe, with CaiT's own drop path and layer
# scale, since the released scripts do not show this model.
_base_ = [
    '../models/cait-xxs36.py',
    '../datasets/imagenet_bs128_224.py',
    '../schedules/imagenet_bs1024_adamw_300e.py',
    '../default_runtime.py',
]
# The gammas of its layer scale are one-dimensional, and so without decay. Position embeddings decay, as in the released
# SMMix code for all models but DeiT; CaiT's own code keeps them from it.
# CaiT's own code trains for 400 epochs and tests with a crop of the whole image; here 300 and 0.875, as for DeiT.
