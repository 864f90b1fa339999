# TokenMix with DeiT-S on CIFAR-100. Recipe: OpenMixup's benchmark (arXiv 2209.04851).
_base_ = [
    '../_base_/models/deit-small_tokenmix-cifar.py',
    '../_base_/datasets/cifar100_bs100_224.py',
    '../_base_/schedules/cifar_bs100_adamw_200e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    teacher=dict(
        head=dict(num_classes=100, loss=dict(num_classes=100)),
        init_cfg=dict(checkpoint='work_dirs/deit-small_cutmix_1xb100-200e_cifar100-224/epoch_200.pth'),
    ),
    head=dict(num_classes=100, loss=dict(num_classes=100, loss_weight=1 / 100)),
)

# DeiT also excludes its position embeddings from weight decay.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'.pos_embed': dict(decay_mult=0.0)}))
