_base_ = ['../_base_/recipes/swin-tiny_1xb100-200e_cifar100-224.py', '../_base_/methods/transmix.py']

model = dict(train_cfg=_base_.mixing)
