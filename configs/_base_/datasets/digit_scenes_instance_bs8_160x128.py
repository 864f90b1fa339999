# Generated on first use, see smmix_mm.datasets.digit_scenes. The transforms are COCO's, at the pictures' own scale.
dataset_type = 'smmix_mm.DigitScenesDetection'
data_root = 'data/digit_scenes_dense'

train_pipeline = [
    dict(type='smmix_mm.LoadImage'),
    dict(type='smmix_mm.LoadInstances', with_bbox=True, with_mask=True),
    dict(type='mmdet.Resize', scale=(160, 128), keep_ratio=True),
    # Digits must not be flipped.
    dict(type='mmdet.RandomFlip', prob=0.0),
    dict(type='mmdet.PackDetInputs'),
]

val_pipeline = [
    dict(type='smmix_mm.LoadImage'),
    dict(type='mmdet.Resize', scale=(160, 128), keep_ratio=True),
    # After resizing, since predictions are compared and drawn at the original size.
    dict(type='smmix_mm.LoadInstances', with_bbox=True, with_mask=True),
    dict(type='mmdet.PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]

# mmdet's inferencer looks for this name and replaces it; _scope_ resolves both to smmix_mm.LoadImage.
test_pipeline = [dict(type='LoadImageFromFile', _scope_='smmix_mm'), *val_pipeline[1:]]

# For --tta of tools/test.py: the picture at two scales, since digits must not be flipped. The
# first one's annotations are drawn.
# Without mmdet's prefix, under which some versions do not register it.
tta_model = dict(type='DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100))
tta_pipeline = [
    test_pipeline[0],
    dict(
        type='TestTimeAug',
        transforms=[
            [{**test_pipeline[1], 'scale': scale} for scale in ((160, 128), (200, 160))],
            [test_pipeline[2]],
            # mmdet asks whether it was flipped.
            [dict(type='mmdet.RandomFlip', prob=0.0)],
            [{**test_pipeline[-1], 'meta_keys': (*test_pipeline[-1]['meta_keys'], 'flip', 'flip_direction')}],
        ],
    ),
]

train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    batch_sampler=dict(type='mmdet.AspectRatioBatchSampler'),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        split='train',
        # Pictures without digits are also used for training.
        filter_cfg=dict(filter_empty_gt=False),
        pipeline=train_pipeline,
    ),
)

val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type=dataset_type, data_root=data_root, split='val', test_mode=True, pipeline=val_pipeline),
)
val_evaluator = dict(
    type='mmdet.CocoMetric', ann_file=f'{data_root}/annotations/instances_val.json', metric=['bbox', 'segm']
)

test_dataloader = {**val_dataloader, 'dataset': {**val_dataloader['dataset'], 'pipeline': test_pipeline}}
test_evaluator = val_evaluator
