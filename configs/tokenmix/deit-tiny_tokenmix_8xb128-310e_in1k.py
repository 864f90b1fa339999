# TokenMix with DeiT-T on ImageNet-1k as TokenMix's released code trains it.
_base_ = [
    '../_base_/models/deit-tiny.py',
    '../_base_/datasets/imagenet_bs128_224_tokenmix.py',
    '../_base_/schedules/imagenet_bs1024_adamw_300e.py',
    '../_base_/default_runtime.py',
    '../_base_/methods/tokenmix.py',
    '../_base_/teachers/deit-small_in1k.py',
]

model = dict(
    train_cfg=_base_.mixing,
    teacher=_base_.teacher,
    head=dict(loss=dict(loss_weight=1 / _base_.model.head.num_classes, **_base_.criterion)),
)

# DeiT also excludes its position embeddings from weight decay.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'.pos_embed': dict(decay_mult=0.0)}))

# 300 epochs of the schedule, and 10 at the lowest learning rate, which timm's scripts add.
train_cfg = dict(max_epochs=310)

# The released code's average of the weights. The published accuracy is the best of the trained and the averaged weights
# over all epochs, so both are evaluated.
custom_hooks = [dict(type='mmpretrain.EMAHook', momentum=1 - 0.99996, evaluate_on_origin=True, priority='ABOVE_NORMAL')]
