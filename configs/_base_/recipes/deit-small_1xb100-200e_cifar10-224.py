# DeiT-S on CIFAR-10, all but the mixing: OpenMixup's benchmark (arXiv 2209.04851).
_base_ = [
    '../models/deit-small.py',
    '../datasets/cifar10_bs100_224.py',
    '../schedules/cifar_bs100_adamw_200e.py',
    '../default_runtime.py',
]

model = dict(head=dict(num_classes=10, loss=dict(num_classes=10)))

# DeiT keeps its position embeddings from decay too.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'.pos_embed': dict(decay_mult=0.0)}))
