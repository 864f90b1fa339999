# PuzzleMix with Swin-T on ImageNet-1k as OpenMixup's benchmark trains it (arXiv 2209.04851). docs/recipes.md lists
# what differs.
_base_ = [
    '../_base_/models/swin-tiny.py',
    '../_base_/datasets/imagenet_bs128_224_erasing.py',
    '../_base_/schedules/imagenet_bs1024_adamw_300e_openmixup.py',
    '../_base_/default_runtime.py',
    '../_base_/methods/puzzlemix.py',
]

model = dict(train_cfg=_base_.mixing)

optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'.relative_position_bias_table': dict(decay_mult=0.0)}))
