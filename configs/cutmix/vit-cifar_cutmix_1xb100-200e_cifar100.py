# CutMix with a small ViT on CIFAR-100, 32 x 32 pixels. Recipe: the schedule of OpenMixup's DeiT-S.
_base_ = [
    '../_base_/models/vit-cifar.py',
    '../_base_/datasets/cifar100_bs100_32.py',
    '../_base_/schedules/cifar_bs100_adamw_200e.py',
    '../_base_/default_runtime.py',
    '../_base_/methods/cutmix.py',
]

model = dict(head=dict(num_classes=100, loss=dict(num_classes=100)), train_cfg=_base_.mixing)

# As in DeiT, position embeddings do not decay.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'.pos_embed': dict(decay_mult=0.0)}))
