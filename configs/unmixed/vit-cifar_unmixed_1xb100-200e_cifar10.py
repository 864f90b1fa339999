# A small ViT without mixing on CIFAR-10, 32 x 32 pixels. Recipe: the schedule of OpenMixup's DeiT-S.
_base_ = [
    '../_base_/models/vit-cifar.py',
    '../_base_/datasets/cifar10_bs100_32.py',
    '../_base_/schedules/cifar_bs100_adamw_200e.py',
    '../_base_/default_runtime.py',
    '../_base_/methods/unmixed.py',
]

model = dict(train_cfg=_base_.mixing)

# As in DeiT, position embeddings do not decay.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'.pos_embed': dict(decay_mult=0.0)}))
