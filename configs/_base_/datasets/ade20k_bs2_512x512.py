# ADE20K, 150 classes: mmseg's standard setting, and official PVT's way of testing.
dataset_type = 'mmseg.ADE20KDataset'
data_root = 'data/ade/ADEChallengeData2016'

train_pipeline = [
    dict(type='smmix_mm.LoadImage'),
    # 0 stands for 'none of the classes' in the files: it is ignored, and the classes move down by one.
    dict(type='smmix_mm.LoadLabelMap', num_classes=150, reduce_zero_label=True),
    # mmcv's, with mmseg's resizing.
    dict(type='RandomResize', scale=(2048, 512), ratio_range=(0.5, 2.0), resize_type='mmseg.Resize', keep_ratio=True),
    dict(type='mmseg.RandomCrop', crop_size=(512, 512), cat_max_ratio=0.75),
    dict(type='mmseg.RandomFlip', prob=0.5),
    dict(type='mmseg.PhotoMetricDistortion'),
    dict(type='mmseg.PackSegInputs'),
]

val_pipeline = [
    dict(type='smmix_mm.LoadImage'),
    dict(type='mmseg.Resize', scale=(2048, 512), keep_ratio=True),
    # Both sides up to the next multiple of 32, so that the four maps cover the whole picture: without it the published
    # mIoU does not reproduce.
    dict(type='mmseg.ResizeToMultiple', size_divisor=32),
    # After the resizing: label maps are compared at the size of the original.
    dict(type='smmix_mm.LoadLabelMap', num_classes=150, reduce_zero_label=True),
    dict(type='mmseg.PackSegInputs'),
]

# By the names which mmseg's inferencer looks for and puts in their place; _scope_ makes all of them smmix_mm.LoadImage.
# Label maps are loaded where there are any.
test_pipeline = [dict(type='LoadImageFromFile', _scope_='smmix_mm'), *val_pipeline[1:]]

train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        pipeline=train_pipeline,
    ),
)

val_dataloader = dict(
    # Pictures differ in size and are tested whole.
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        pipeline=val_pipeline,
    ),
)
# Its output includes the mean accuracy of the classes, mAcc.
val_evaluator = dict(type='mmseg.IoUMetric', iou_metrics=['mIoU'])

test_dataloader = {**val_dataloader, 'dataset': {**val_dataloader['dataset'], 'pipeline': test_pipeline}}
test_evaluator = val_evaluator
