_base_ = ['../_base_/recipes/deit-base_erasing_8xb128-300e_in1k.py', '../_base_/methods/transmix.py']

model = dict(train_cfg=_base_.mixing)
