# AutoMix with DeiT-S on ImageNet-1k as OpenMixup's benchmark trains it (arXiv 2209.04851): random erasing, gradient
# clipping; and, unlike the other methods of the benchmark, drop path and 5 epochs of warm-up. docs/recipes.md lists
# what differs.
_base_ = [
    '../_base_/models/deit-small.py',
    '../_base_/datasets/imagenet_bs128_224_erasing.py',
    '../_base_/schedules/imagenet_bs1024_adamw_300e_openmixup.py',
    '../_base_/default_runtime.py',
    '../_base_/methods/automix.py',
]

model = dict(backbone=dict(drop_path_rate=0.1), train_cfg=_base_.mixing)

# DeiT also excludes its position embeddings from weight decay.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'.pos_embed': dict(decay_mult=0.0), **_base_.mix_block_keys}))

param_scheduler = _base_.param_scheduler
param_scheduler[0]['end'] = param_scheduler[1]['begin'] = 5
param_scheduler[1]['type'] = 'smmix_mm.GroupedCosineAnnealingLR'
