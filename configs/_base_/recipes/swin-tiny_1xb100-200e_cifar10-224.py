# Swin-T on CIFAR-10, all but the mixing: OpenMixup's benchmark (arXiv 2209.04851).
_base_ = [
    '../models/swin-tiny.py',
    '../datasets/cifar10_bs100_224.py',
    '../schedules/cifar_bs100_adamw_200e.py',
    '../default_runtime.py',
]

model = dict(head=dict(num_classes=10, loss=dict(num_classes=10)))

optim_wrapper = dict(
    # Half of DeiT's.
    optimizer=dict(lr=5e-4),
    paramwise_cfg=dict(custom_keys={'.relative_position_bias_table': dict(decay_mult=0.0)}),
)
