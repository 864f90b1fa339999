_base_ = ['../_base_/recipes/deit-small_8xb128-300e_in1k.py', '../_base_/methods/automix.py']

model = dict(train_cfg=_base_.mixing)
