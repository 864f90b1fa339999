_base_ = ['../_base_/recipes/pvt-cifar_1xb100-200e_cifar100.py', '../_base_/methods/smmix.py']

model = dict(train_cfg=_base_.mixing)
