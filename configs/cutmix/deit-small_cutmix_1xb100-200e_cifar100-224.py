# CutMix with DeiT-S on CIFAR-100. Recipe: OpenMixup's benchmark (arXiv 2209.04851).
_base_ = [
    '../_base_/models/deit-small.py',
    '../_base_/datasets/cifar100_bs100_224.py',
    '../_base_/schedules/cifar_bs100_adamw_200e.py',
    '../_base_/default_runtime.py',
    '../_base_/methods/cutmix.py',
]

model = dict(head=dict(num_classes=100, loss=dict(num_classes=100)), train_cfg=_base_.mixing)

# DeiT also excludes its position embeddings from weight decay.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'.pos_embed': dict(decay_mult=0.0)}))
