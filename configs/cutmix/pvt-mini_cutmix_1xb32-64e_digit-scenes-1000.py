# The demo's pretraining with CutMix: few pictures, each seen often.
_base_ = [
    '../_base_/models/pvt-mini.py',
    '../_base_/datasets/digit_scenes_bs32_64.py',
    '../_base_/schedules/digit_scenes_bs32_adamw_64e.py',
    '../_base_/default_runtime.py',
    '../_base_/methods/cutmix.py',
]

model = dict(train_cfg=_base_.mixing)

data_root = 'data/digit_scenes_1000'
dataset = dict(data_root=data_root, sizes=dict(train=1000))
train_dataloader = dict(dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = dict(dataset=dataset)

default_hooks = dict(checkpoint=dict(interval=8, max_keep_ckpts=1))

# Logs the mean over all steps since the last line, of Mixup and of the other method.
log_processor = dict(window_size=100)
