_base_ = ['../_base_/recipes/deit-small_erasing_8xb128-300e_in1k.py', '../_base_/methods/transmix.py']

model = dict(train_cfg=_base_.mixing)

# TransMix's own for this size, as is the warm-up of 20 epochs.
optim_wrapper = dict(optimizer=dict(weight_decay=0.03))

param_scheduler = _base_.param_scheduler
param_scheduler[0]['end'] = param_scheduler[1]['begin'] = 20
