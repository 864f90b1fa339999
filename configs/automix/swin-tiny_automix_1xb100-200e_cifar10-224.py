_base_ = ['../_base_/recipes/swin-tiny_1xb100-200e_cifar10-224.py', '../_base_/methods/automix.py']

model = dict(train_cfg=_base_.mixing)
