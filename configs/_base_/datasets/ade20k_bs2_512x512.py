# ADE20K, 150 classes, with mmseg's standard setting and official PVT's test pipeline.
dataset_type = 'mmseg.ADE20KDataset'
data_root = 'data/ade/ADEChallengeData2016'

train_pipeline = [
    dict(type='smmix_mm.LoadImage'),
    # In the files 0 means 'none of the classes'. It is ignored, and the classes are shifted down by one.
    dict(type='smmix_mm.LoadLabelMap', num_classes=150, reduce_zero_label=True),
    # mmcv's transform with mmseg's resizing.
    dict(type='RandomResize', scale=(2048, 512), ratio_range=(0.5, 2.0), resize_type='mmseg.Resize', keep_ratio=True),
    dict(type='mmseg.RandomCrop', crop_size=(512, 512), cat_max_ratio=0.75),
    dict(type='mmseg.RandomFlip', prob=0.5),
    dict(type='mmseg.PhotoMetricDistortion'),
    dict(type='mmseg.PackSegInputs'),
]

val_pipeline = [
    dict(type='smmix_mm.LoadImage'),
    dict(type='mmseg.Resize', scale=(2048, 512), keep_ratio=True),
    # Enlarges both sides to a multiple of 32, so that the four maps cover the whole picture. Without it the published
    # mIoU is not reproduced.
    dict(type='mmseg.ResizeToMultiple', size_divisor=32),
    # After resizing, since label maps are compared at the original size.
    dict(type='smmix_mm.LoadLabelMap', num_classes=150, reduce_zero_label=True),
    dict(type='mmseg.PackSegInputs'),
]

# mmseg's inferencer looks for these names and replaces them; _scope_ resolves them to smmix_mm.LoadImage. Label maps
# are loaded if there are any.
test_pipeline = [dict(type='LoadImageFromFile', _scope_='smmix_mm'), *val_pipeline[1:]]

# For --tta of tools/test.py: the picture and its mirror image. The label map of the first one is used.
tta_model = dict(type='mmseg.SegTTAModel')
tta_pipeline = [
    *test_pipeline[:-1],
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='mmseg.RandomFlip', prob=0.0), dict(type='mmseg.RandomFlip', prob=1.0)],
            test_pipeline[-1:],
        ],
    ),
]

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
# The output includes the mean accuracy of the classes, mAcc.
val_evaluator = dict(type='mmseg.IoUMetric', iou_metrics=['mIoU'])

test_dataloader = {**val_dataloader, 'dataset': {**val_dataloader['dataset'], 'pipeline': test_pipeline}}
test_evaluator = val_evaluator
