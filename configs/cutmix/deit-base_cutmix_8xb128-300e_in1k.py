# CutMix with DeiT-B on ImageNet-1k. Recipe: the released SMMix code, which follows DeiT (arXiv 2012.12877).
_base_ = [
    '../_base_/models/deit-base.py',
    '../_base_/datasets/imagenet_bs128_224.py',
    '../_base_/schedules/imagenet_bs1024_adamw_300e.py',
    '../_base_/default_runtime.py',
    '../_base_/methods/cutmix.py',
]

model = dict(train_cfg=_base_.mixing)

# DeiT also excludes its position embeddings from weight decay.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'.pos_embed': dict(decay_mult=0.0)}))
