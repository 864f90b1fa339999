# DeiT-T on ImageNet-1k as TokenMix's released code trains it, all but the mixing.
_base_ = [
    '../models/deit-tiny.py',
    '../datasets/imagenet_bs128_224_tokenmix.py',
    '../schedules/imagenet_bs1024_adamw_310e.py',
    '../ema_runtime.py',
]

# DeiT keeps its position embeddings from decay too.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'.pos_embed': dict(decay_mult=0.0)}))

# The published figure is the best of the trained and the averaged weights over all epochs: both are scored.
custom_hooks = _base_.custom_hooks
custom_hooks[0]['evaluate_on_origin'] = True
