# Swin-T on ImageNet-1k as OpenMixup's benchmark trains it (arXiv 2209.04851), all but the mixing. docs/recipes.md lists
# what differs.
_base_ = [
    '../models/swin-tiny.py',
    '../datasets/imagenet_bs128_224_erasing.py',
    '../schedules/imagenet_bs1024_adamw_300e_openmixup.py',
    '../default_runtime.py',
]

optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'.relative_position_bias_table': dict(decay_mult=0.0)}))
