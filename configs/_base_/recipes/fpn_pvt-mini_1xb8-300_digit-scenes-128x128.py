# Segmentation in the demo, all but the weights that the backbone starts from.
_base_ = [
    '../models/fpn_pvt-mini.py',
    '../datasets/digit_scenes_bs8_128x128.py',
    '../schedules/digit_scenes_segmentation_300.py',
    '../segmentation_runtime.py',
]

default_hooks = dict(checkpoint=dict(interval=300, max_keep_ckpts=1, save_best=None))
