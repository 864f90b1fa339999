# Made on first use, see smmix_mm.datasets.digit_scenes. The transforms are COCO's, at the pictures' own scale.
_base_ = './coco_instance_bs2_1333x800.py'

dataset_type = 'smmix_mm.DigitScenesDetection'
data_root = 'data/digit_scenes_dense'

train_pipeline = _base_.train_pipeline
val_pipeline = _base_.val_pipeline
test_pipeline = _base_.test_pipeline
train_pipeline[2]['scale'] = val_pipeline[1]['scale'] = test_pipeline[1]['scale'] = (160, 128)
# Digits must not be flipped.
train_pipeline[3]['prob'] = 0.0

train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(
        _delete_=True,
        type=dataset_type,
        data_root=data_root,
        split='train',
        # Pictures without any digit are trained on too.
        filter_cfg=dict(filter_empty_gt=False),
        pipeline=train_pipeline,
    ),
)

val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(
        _delete_=True, type=dataset_type, data_root=data_root, split='val', test_mode=True, pipeline=val_pipeline
    ),
)
val_evaluator = dict(ann_file=f'{data_root}/annotations/instances_val.json')

test_dataloader = {**val_dataloader, 'dataset': {**val_dataloader['dataset'], 'pipeline': test_pipeline}}
test_evaluator = val_evaluator
