# The run with a small PVT on small images, to try on a CPU, from random weights.
_base_ = [
    '../_base_/models/pvt-mini.py',
    '../_base_/datasets/own_folders_bs32_224.py',
    '../_base_/schedules/digit_scenes_bs32_adamw_8e.py',
    '../_base_/default_runtime.py',
    '../_base_/methods/smmix.py',
]

model = dict(train_cfg=_base_.mixing)

# As in the detector and the segmentor.
data_preprocessor = dict(mean=[127.5, 127.5, 127.5], std=[64.0, 64.0, 64.0])

train_pipeline = _base_.train_pipeline
train_pipeline[1]['scale'] = 64
test_pipeline = _base_.test_pipeline
test_pipeline[1]['scale'] = 64
test_pipeline[2]['crop_size'] = 64

train_dataloader = dict(batch_size=8, num_workers=1, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(num_workers=1, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
