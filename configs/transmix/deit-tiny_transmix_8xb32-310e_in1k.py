# TransMix with DeiT-T on ImageNet-1k as TransMix's released code trains it. The values are those of the released
# file for DeiT-S, since there is none for this size.
_base_ = [
    '../_base_/models/deit-tiny.py',
    '../_base_/datasets/imagenet_bs32_224_transmix.py',
    '../_base_/schedules/imagenet_bs1024_adamw_300e.py',
    '../_base_/default_runtime.py',
    '../_base_/methods/transmix.py',
]

model = dict(train_cfg=_base_.mixing)

optim_wrapper = dict(
    optimizer=dict(weight_decay=0.03),
    # DeiT also excludes its position embeddings from weight decay.
    paramwise_cfg=dict(custom_keys={'.pos_embed': dict(decay_mult=0.0)}),
)

# 20 epochs of warm-up.
param_scheduler = _base_.param_scheduler
param_scheduler[0]['end'] = param_scheduler[1]['begin'] = 20

# The learning rate of 1e-3 is for this batch.
auto_scale_lr = dict(base_batch_size=256)

# 300 epochs of the schedule, and 10 at the lowest learning rate, which timm's scripts add.
train_cfg = dict(max_epochs=310)

# The published accuracy is that of the averaged weights, which are also evaluated here.
custom_hooks = [dict(type='mmpretrain.EMAHook', momentum=1 - 0.99996, priority='ABOVE_NORMAL')]
