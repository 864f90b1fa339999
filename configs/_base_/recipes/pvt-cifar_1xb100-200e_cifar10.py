# A small PVT on CIFAR-10, 32 x 32 pixels, all but the mixing: the schedule of OpenMixup's DeiT-S.
_base_ = [
    '../models/pvt-cifar.py',
    '../datasets/cifar10_bs100_32.py',
    '../schedules/cifar_bs100_adamw_200e.py',
    '../default_runtime.py',
]
