# The run with a small PVT on small images, to try on a CPU, from the weights of the small classifier.
_base_ = [
    '../_base_/models/fpn_pvt-mini.py',
    '../_base_/datasets/own_masks_bs8_512x512.py',
    '../_base_/schedules/digit_scenes_segmentation_300.py',
    '../_base_/segmentation_runtime.py',
]

model = dict(
    backbone=dict(
        init_cfg=dict(
            _delete_=True,
            type='Pretrained',
            checkpoint='{{$CHECKPOINT:work_dirs/pvt-mini_smmix_1xb8-8e_own-64/epoch_8.pth}}',
        )
    ),
    # That of DigitScenes has weights for its classes.
    decode_head=dict(
        loss_decode=dict(_delete_=True, type='mmseg.CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)
    ),
)

train_pipeline = _base_.train_pipeline
train_pipeline[2]['scale'] = (160, 128)
train_pipeline[3]['crop_size'] = (128, 128)
val_pipeline = _base_.val_pipeline
val_pipeline[1]['scale'] = (160, 128)
test_pipeline = _base_.test_pipeline
test_pipeline[1]['scale'] = (160, 128)

train_dataloader = dict(num_workers=1, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(num_workers=1, dataset=dict(pipeline=val_pipeline))
test_dataloader = dict(num_workers=1, dataset=dict(pipeline=test_pipeline))

default_hooks = dict(checkpoint=dict(interval=300))
