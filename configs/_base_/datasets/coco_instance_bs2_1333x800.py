# COCO 2017 with the instances' masks; all else as for boxes alone.
_base_ = './coco_detection_bs2_1333x800.py'

train_pipeline = [
    dict(type='smmix_mm.LoadImage'),
    dict(type='smmix_mm.LoadInstances', with_bbox=True, with_mask=True),
    dict(type='mmdet.Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='mmdet.RandomFlip', prob=0.5),
    dict(type='mmdet.PackDetInputs'),
]

test_pipeline = [
    dict(type='smmix_mm.LoadImage'),
    dict(type='mmdet.Resize', scale=(1333, 800), keep_ratio=True),
    # After the resizing: what is predicted is compared, and drawn, at the size of the original.
    dict(type='smmix_mm.LoadInstances', with_bbox=True, with_mask=True),
    dict(type='mmdet.PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
val_evaluator = dict(metric=['bbox', 'segm'])

test_dataloader = val_dataloader
test_evaluator = val_evaluator
