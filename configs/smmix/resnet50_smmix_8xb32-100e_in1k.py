# SMMix with ResNet-50 on ImageNet-1k. Recipe: mmpretrain's of that model; only the mixing is added.
_base_ = ['../_base_/mmpretrain/resnet50_8xb32_in1k.py', '../_base_/methods/smmix.py']

model = dict(train_cfg=_base_.mixing)
