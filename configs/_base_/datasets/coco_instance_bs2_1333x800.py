# COCO 2017 with the instances' masks; all else as for boxes alone.
_base_ = './coco_detection_bs2_1333x800.py'

train_pipeline = _base_.train_pipeline
val_pipeline = _base_.val_pipeline
test_pipeline = _base_.test_pipeline
train_pipeline[1]['with_mask'] = val_pipeline[2]['with_mask'] = test_pipeline[2]['with_mask'] = True

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

val_dataloader = dict(dataset=dict(pipeline=val_pipeline))
val_evaluator = dict(metric=['bbox', 'segm'])

test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_evaluator = val_evaluator
