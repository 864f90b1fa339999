# DeiT-T on ImageNet-1k as TransMix's released code trains it, all but the mixing: the values of
# the released file for DeiT-S, since there is none for this size.
_base_ = [
    '../models/deit-tiny.py',
    '../datasets/imagenet_bs32_224_transmix.py',
    '../schedules/imagenet_bs1024_adamw_310e.py',
    '../ema_runtime.py',
]

optim_wrapper = dict(
    optimizer=dict(weight_decay=0.03),
    # DeiT keeps its position embeddings from decay too.
    paramwise_cfg=dict(custom_keys={'.pos_embed': dict(decay_mult=0.0)}),
)

# 20 epochs of warm-up.
param_scheduler = _base_.param_scheduler
param_scheduler[0]['end'] = param_scheduler[1]['begin'] = 20

# The learning rate of 1e-3 is for this batch.
auto_scale_lr = dict(base_batch_size=256)
