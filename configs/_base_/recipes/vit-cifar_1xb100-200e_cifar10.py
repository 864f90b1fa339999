# A small ViT on CIFAR-10, 32 x 32 pixels, all but the mixing: the schedule of OpenMixup's DeiT-S.
_base_ = [
    '../models/vit-cifar.py',
    '../datasets/cifar10_bs100_32.py',
    '../schedules/cifar_bs100_adamw_200e.py',
    '../default_runtime.py',
]

# As DeiT's: no decay on position embeddings.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'.pos_embed': dict(decay_mult=0.0)}))
