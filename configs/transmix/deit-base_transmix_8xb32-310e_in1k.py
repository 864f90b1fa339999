# TransMix with DeiT-B on ImageNet-1k as TransMix's released code trains it.
_base_ = [
    '../_base_/models/deit-base.py',
    '../_base_/datasets/imagenet_bs32_224_transmix.py',
    '../_base_/schedules/imagenet_bs1024_adamw_300e.py',
    '../_base_/default_runtime.py',
    '../_base_/methods/transmix.py',
]

# The probability in the released file for this size.
mixing = _base_.mixing
mixing['probs'] = [0.2, 0.8]

model = dict(train_cfg=mixing)

# DeiT also excludes its position embeddings from weight decay.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'.pos_embed': dict(decay_mult=0.0)}))

# The learning rate of 1e-3 is for this batch.
auto_scale_lr = dict(base_batch_size=256)

# 300 epochs of the schedule, and 10 at the lowest learning rate, which timm's scripts add.
train_cfg = dict(max_epochs=310)

# The published accuracy is that of the averaged weights, which are also evaluated here.
custom_hooks = [dict(type='mmpretrain.EMAHook', momentum=1 - 0.99996, priority='ABOVE_NORMAL')]
