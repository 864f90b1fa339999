_base_ = ['../_base_/recipes/deit-small_openmixup_8xb128-300e_in1k.py', '../_base_/methods/automix.py']

# Unlike the other methods of the benchmark: drop path, and 5 epochs of warm-up.
model = dict(backbone=dict(drop_path_rate=0.1), train_cfg=_base_.mixing)

optim_wrapper = dict(paramwise_cfg=dict(custom_keys=_base_.mix_block_keys))

param_scheduler = _base_.param_scheduler
param_scheduler[0]['end'] = param_scheduler[1]['begin'] = 5
param_scheduler[1]['type'] = 'smmix_mm.GroupedCosineAnnealingLR'
