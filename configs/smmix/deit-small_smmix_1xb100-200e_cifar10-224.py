_base_ = ['../_base_/recipes/deit-small_1xb100-200e_cifar10-224.py', '../_base_/methods/smmix.py']

model = dict(train_cfg=_base_.mixing)
