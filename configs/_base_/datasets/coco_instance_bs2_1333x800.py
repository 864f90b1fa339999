# COCO 2017, boxes and masks, at one scale: mmdet's standard setting, which official PVT follows.
dataset_type = 'mmdet.CocoDataset'
data_root = 'data/coco'

train_pipeline = [
    dict(type='smmix_mm.LoadImage'),
    dict(type='smmix_mm.LoadInstances', with_bbox=True, with_mask=True),
    dict(type='mmdet.Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='mmdet.RandomFlip', prob=0.5),
    dict(type='mmdet.PackDetInputs'),
]

val_pipeline = [
    dict(type='smmix_mm.LoadImage'),
    dict(type='mmdet.Resize', scale=(1333, 800), keep_ratio=True),
    # After resizing, since predictions are compared and drawn at the original size.
    dict(type='smmix_mm.LoadInstances', with_bbox=True, with_mask=True),
    dict(type='mmdet.PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]

# mmdet's inferencer looks for this name and replaces it; _scope_ resolves both to smmix_mm.LoadImage.
test_pipeline = [dict(type='LoadImageFromFile', _scope_='smmix_mm'), *val_pipeline[1:]]

# For --tta of tools/test.py: the picture and its mirror image. The first one's annotations are drawn.
# Without mmdet's prefix, under which some versions do not register it.
tta_model = dict(type='DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100))
tta_pipeline = [
    *test_pipeline[:-1],
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='mmdet.RandomFlip', prob=0.0), dict(type='mmdet.RandomFlip', prob=1.0)],
            [{**test_pipeline[-1], 'meta_keys': (*test_pipeline[-1]['meta_keys'], 'flip', 'flip_direction')}],
        ],
    ),
]

train_dataloader = dict(
    batch_size=2,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    batch_sampler=dict(type='mmdet.AspectRatioBatchSampler'),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017'),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=train_pipeline,
    ),
)

val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017'),
        test_mode=True,
        pipeline=val_pipeline,
    ),
)
val_evaluator = dict(
    type='mmdet.CocoMetric', ann_file=f'{data_root}/annotations/instances_val2017.json', metric=['bbox', 'segm']
)

test_dataloader = {**val_dataloader, 'dataset': {**val_dataloader['dataset'], 'pipeline': test_pipeline}}
test_evaluator = val_evaluator
