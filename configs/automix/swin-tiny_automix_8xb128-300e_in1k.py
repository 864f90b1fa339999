_base_ = ['../_base_/recipes/swin-tiny_openmixup_8xb128-300e_in1k.py', '../_base_/methods/automix.py']

model = dict(train_cfg=_base_.mixing)

optim_wrapper = dict(paramwise_cfg=dict(custom_keys=_base_.mix_block_keys))

param_scheduler = _base_.param_scheduler
param_scheduler[1]['type'] = 'smmix_mm.GroupedCosineAnnealingLR'
