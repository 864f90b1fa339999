# DeiT-S on CIFAR-100, all but the mixing: OpenMixup's benchmark (arXiv 2209.04851).
_base_ = [
    '../models/deit-small.py',
    '../datasets/cifar100_bs100_224.py',
    '../schedules/cifar_bs100_adamw_200e.py',
    '../default_runtime.py',
]

model = dict(head=dict(num_classes=100, loss=dict(num_classes=100)))

# DeiT keeps its position embeddings from decay too.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'.pos_embed': dict(decay_mult=0.0)}))
