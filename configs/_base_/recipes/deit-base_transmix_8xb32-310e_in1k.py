# DeiT-B on ImageNet-1k as TransMix's released code trains it, all but the mixing.
_base_ = [
    '../models/deit-base.py',
    '../datasets/imagenet_bs32_224_transmix.py',
    '../schedules/imagenet_bs1024_adamw_310e.py',
    '../ema_runtime.py',
]

# DeiT keeps its position embeddings from decay too.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'.pos_embed': dict(decay_mult=0.0)}))

# The learning rate of 1e-3 is for this batch.
auto_scale_lr = dict(base_batch_size=256)
