# CutMix with a small ResNet on CIFAR-10, 32 x 32 pixels. Recipe: that of vit-cifar.
_base_ = [
    '../_base_/models/resnet-cifar.py',
    '../_base_/datasets/cifar10_bs100_32.py',
    '../_base_/schedules/cifar_bs100_adamw_200e.py',
    '../_base_/default_runtime.py',
    '../_base_/methods/cutmix.py',
]

model = dict(train_cfg=_base_.mixing)
