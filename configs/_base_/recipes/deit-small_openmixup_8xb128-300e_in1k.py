# DeiT-S on ImageNet-1k as OpenMixup's benchmark trains it (arXiv 2209.04851), all but the mixing: random erasing,
# gradient clipping, no drop path. docs/recipes.md lists what differs.
_base_ = [
    '../models/deit-small.py',
    '../datasets/imagenet_bs128_224_erasing.py',
    '../schedules/imagenet_bs1024_adamw_300e_openmixup.py',
    '../default_runtime.py',
]

model = dict(backbone=dict(drop_path_rate=0.0))

# DeiT keeps its position embeddings from decay too.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'.pos_embed': dict(decay_mult=0.0)}))
