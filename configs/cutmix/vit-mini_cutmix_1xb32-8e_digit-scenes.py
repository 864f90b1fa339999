_base_ = ['../_base_/recipes/vit-mini_1xb32-8e_digit-scenes.py', '../_base_/methods/cutmix.py']

model = dict(train_cfg=_base_.mixing)
