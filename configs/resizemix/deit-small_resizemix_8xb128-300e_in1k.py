_base_ = ['../_base_/recipes/deit-small_openmixup_8xb128-300e_in1k.py', '../_base_/methods/resizemix.py']

model = dict(train_cfg=_base_.mixing)
