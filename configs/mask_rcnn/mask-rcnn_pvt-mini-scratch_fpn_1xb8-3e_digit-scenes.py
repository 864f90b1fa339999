# Detection in the demo, from random weights, to compare.
_base_ = [
    '../_base_/models/mask-rcnn_pvt-mini_fpn.py',
    '../_base_/datasets/digit_scenes_instance_bs8_160x128.py',
    '../_base_/schedules/digit_scenes_detection_3e.py',
    '../_base_/detection_runtime.py',
]

default_hooks = dict(
    checkpoint=dict(interval=3, max_keep_ckpts=1, save_best=None),
    # For pictures of predictions.
    visualization=dict(score_thr=0.5),
)
