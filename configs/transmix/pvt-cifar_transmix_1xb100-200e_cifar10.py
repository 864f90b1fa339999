_base_ = ['../_base_/recipes/pvt-cifar_1xb100-200e_cifar10.py', '../_base_/methods/transmix.py']

model = dict(train_cfg=_base_.mixing)
