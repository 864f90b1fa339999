# The demo, all but the mixing.
_base_ = [
    '../models/pvt-mini.py',
    '../datasets/digit_scenes_bs32_64.py',
    '../schedules/digit_scenes_bs32_adamw_8e.py',
    '../default_runtime.py',
]

default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))

# What is logged is the mean over all steps since the last line, Mixup's and the other method's alike.
log_processor = dict(window_size=100)
