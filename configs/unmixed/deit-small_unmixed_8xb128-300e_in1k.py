# DeiT-S without mixing on ImageNet-1k as OpenMixup's benchmark trains it (arXiv 2209.04851). Random erasing, gradient
# clipping, no drop path. docs/recipes.md lists what differs.
_base_ = [
    '../_base_/models/deit-small.py',
    '../_base_/datasets/imagenet_bs128_224_erasing.py',
    '../_base_/schedules/imagenet_bs1024_adamw_300e_openmixup.py',
    '../_base_/default_runtime.py',
    '../_base_/methods/unmixed.py',
]

model = dict(backbone=dict(drop_path_rate=0.0), train_cfg=_base_.mixing)

# DeiT also excludes its position embeddings from weight decay.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'.pos_embed': dict(decay_mult=0.0)}))
