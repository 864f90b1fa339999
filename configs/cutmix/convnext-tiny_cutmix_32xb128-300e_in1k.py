# CutMix with ConvNeXt-T on ImageNet-1k. Recipe: mmpretrain's of that model; only the mixing is replaced.
_base_ = ['../_base_/mmpretrain/convnext-tiny_32xb128_in1k.py', '../_base_/methods/cutmix.py']

model = dict(train_cfg=_base_.mixing)
