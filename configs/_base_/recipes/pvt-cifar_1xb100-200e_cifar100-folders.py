# A small PVT on CIFAR-100 from image folders, 32 x 32 pixels, all but the mixing: the schedule of OpenMixup's DeiT-S.
_base_ = [
    '../models/pvt-cifar.py',
    '../datasets/cifar100_bs100_32_folders.py',
    '../schedules/cifar_bs100_adamw_200e.py',
    '../default_runtime.py',
]

model = dict(head=dict(num_classes=100, loss=dict(num_classes=100)))
