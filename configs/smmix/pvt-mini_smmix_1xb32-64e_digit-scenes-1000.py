# The demo's pretraining with SMMix: few pictures, each seen often.
_base_ = [
    '../_base_/models/pvt-mini.py',
    '../_base_/datasets/digit_scenes-1000_bs32_64.py',
    '../_base_/schedules/digit_scenes_bs32_adamw_64e.py',
    '../_base_/default_runtime.py',
    '../_base_/methods/smmix.py',
]

model = dict(train_cfg=_base_.mixing)

default_hooks = dict(checkpoint=dict(interval=16, max_keep_ckpts=1))

# Logs the mean over all steps since the last line, of Mixup and of the other method.
log_processor = dict(window_size=100)
