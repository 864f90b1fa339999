_base_ = ['../_base_/recipes/cait-xxs36_8xb128-300e_in1k.py', '../_base_/methods/cutmix.py']

model = dict(train_cfg=_base_.mixing)
