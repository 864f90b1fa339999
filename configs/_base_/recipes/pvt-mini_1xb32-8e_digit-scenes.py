# The demo, all but the mixing.
_base_ = [
    '../models/pvt-mini.py',
    '../datasets/digit_scenes_bs32_64.py',
    '../schedules/digit_scenes_bs32_adamw_8e.py',
    '../default_runtime.py',
]

default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))
