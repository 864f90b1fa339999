# DeiT-T on ImageNet-1k with DeiT's own random erasing, which TransMix and TokenMix keep; all but the mixing.
_base_ = [
    '../models/deit-tiny.py',
    '../datasets/imagenet_bs128_224_erasing.py',
    '../schedules/imagenet_bs1024_adamw_300e.py',
    '../default_runtime.py',
]

# DeiT keeps its position embeddings from decay too.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'.pos_embed': dict(decay_mult=0.0)}))
