# The run with a small PVT on small images, to try on a CPU, from the weights of the small classifier.
_base_ = [
    '../_base_/models/mask-rcnn_pvt-mini_fpn.py',
    '../_base_/datasets/own_instance_bs2_1333x800.py',
    '../_base_/schedules/digit_scenes_detection_3e.py',
    '../_base_/detection_runtime.py',
]

model = dict(
    backbone=dict(
        init_cfg=dict(
            _delete_=True,
            type='Pretrained',
            checkpoint='{{$CHECKPOINT:work_dirs/pvt-mini_smmix_1xb8-8e_own-64/epoch_8.pth}}',
        )
    )
)

train_pipeline = _base_.train_pipeline
train_pipeline[2]['scale'] = (160, 128)
val_pipeline = _base_.val_pipeline
val_pipeline[1]['scale'] = (160, 128)
test_pipeline = _base_.test_pipeline
test_pipeline[1]['scale'] = (160, 128)

train_dataloader = dict(batch_size=4, num_workers=1, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(num_workers=1, dataset=dict(pipeline=val_pipeline))
test_dataloader = dict(num_workers=1, dataset=dict(pipeline=test_pipeline))
