# SMMix with Swin-T on ImageNet-1k. The released SMMix scripts do not contain it: the settings below are official
# Swin's, as is the random erasing of 0.25 (in the data); the rest is the recipe of the released code.
_base_ = [
    '../_base_/models/swin-tiny.py',
    '../_base_/datasets/imagenet_bs128_224_erasing.py',
    '../_base_/schedules/imagenet_bs1024_adamw_300e.py',
    '../_base_/default_runtime.py',
    '../_base_/methods/smmix.py',
]

model = dict(train_cfg=_base_.mixing)

optim_wrapper = dict(
    clip_grad=dict(_delete_=True, max_norm=5.0),
    paramwise_cfg=dict(custom_keys={'.relative_position_bias_table': dict(decay_mult=0.0)}),
)

# 20 epochs of warm-up.
param_scheduler = _base_.param_scheduler
param_scheduler[0]['end'] = param_scheduler[1]['begin'] = 20
