# CutMix with Swin-T on CIFAR-10. Recipe: OpenMixup's benchmark (arXiv 2209.04851).
_base_ = [
    '../_base_/models/swin-tiny.py',
    '../_base_/datasets/cifar10_bs100_224.py',
    '../_base_/schedules/cifar_bs100_adamw_200e.py',
    '../_base_/default_runtime.py',
    '../_base_/methods/cutmix.py',
]

model = dict(head=dict(num_classes=10, loss=dict(num_classes=10)), train_cfg=_base_.mixing)

optim_wrapper = dict(
    # Half of DeiT's.
    optimizer=dict(lr=5e-4),
    paramwise_cfg=dict(custom_keys={'.relative_position_bias_table': dict(decay_mult=0.0)}),
)
