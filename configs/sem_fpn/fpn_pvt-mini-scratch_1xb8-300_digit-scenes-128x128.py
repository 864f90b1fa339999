# Segmentation in the demo, from random weights, to compare.
_base_ = [
    '../_base_/models/fpn_pvt-mini.py',
    '../_base_/datasets/digit_scenes_bs8_128x128.py',
    '../_base_/schedules/digit_scenes_segmentation_300.py',
    '../_base_/segmentation_runtime.py',
]

default_hooks = dict(checkpoint=dict(interval=300, max_keep_ckpts=1, save_best=None))
