# Semantic FPN with PVT-T on ADE20K, all but the weights that the backbone starts from: official PVT.
_base_ = [
    '../models/fpn_pvt-tiny.py',
    '../datasets/ade20k_bs2_512x512.py',
    '../schedules/ade20k_adamw_80k.py',
    '../segmentation_runtime.py',
]
