_base_ = ['../_base_/recipes/deit-small_transmix_8xb32-310e_in1k.py', '../_base_/methods/transmix.py']

model = dict(train_cfg=_base_.mixing)
