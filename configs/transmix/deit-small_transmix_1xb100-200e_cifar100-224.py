_base_ = ['../_base_/recipes/deit-small_1xb100-200e_cifar100-224.py', '../_base_/methods/transmix.py']

model = dict(train_cfg=_base_.mixing)
