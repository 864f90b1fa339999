# Generated on first use, see smmix_mm.datasets.digit_scenes. The transforms are ADE20K's, at the pictures' own scale.
dataset_type = 'smmix_mm.DigitScenesSegmentation'
data_root = 'data/digit_scenes_dense'

train_pipeline = [
    dict(type='smmix_mm.LoadImage'),
    # In the files 0 means 'none of the classes'. It is ignored, and the classes are shifted down by one.
    dict(type='smmix_mm.LoadLabelMap', num_classes=11, reduce_zero_label=True),
    # mmcv's transform with mmseg's resizing.
    dict(type='RandomResize', scale=(160, 128), ratio_range=(0.8, 1.25), resize_type='mmseg.Resize', keep_ratio=True),
    dict(type='mmseg.RandomCrop', crop_size=(128, 128), cat_max_ratio=0.75),
    # Digits must not be flipped.
    dict(type='mmseg.RandomFlip', prob=0.0),
    dict(type='mmseg.PhotoMetricDistortion'),
    dict(type='mmseg.PackSegInputs'),
]

val_pipeline = [
    dict(type='smmix_mm.LoadImage'),
    dict(type='mmseg.Resize', scale=(160, 128), keep_ratio=True),
    # Enlarges both sides to a multiple of 32, so that the maps cover the whole picture.
    dict(type='mmseg.ResizeToMultiple', size_divisor=32),
    # After resizing, since label maps are compared at the original size.
    dict(type='smmix_mm.LoadLabelMap', num_classes=11, reduce_zero_label=True),
    dict(type='mmseg.PackSegInputs'),
]

# mmseg's inferencer looks for these names and replaces them; _scope_ resolves them to smmix_mm.LoadImage. Label maps
# are loaded if there are any.
test_pipeline = [dict(type='LoadImageFromFile', _scope_='smmix_mm'), *val_pipeline[1:]]

# For --tta of tools/test.py: the picture at two scales, since digits must not be flipped. The
# label map of the first one is used.
tta_model = dict(type='mmseg.SegTTAModel')
tta_pipeline = [
    test_pipeline[0],
    dict(
        type='TestTimeAug',
        transforms=[
            [{**test_pipeline[1], 'scale': scale} for scale in ((160, 128), (200, 160))],
            *([step] for step in test_pipeline[2:]),
        ],
    ),
]

train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(type=dataset_type, data_root=data_root, split='train', pipeline=train_pipeline),
)

val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type=dataset_type, data_root=data_root, split='val', pipeline=val_pipeline),
)
# The output includes the mean accuracy of the classes, mAcc.
val_evaluator = dict(type='mmseg.IoUMetric', iou_metrics=['mIoU'])

test_dataloader = {**val_dataloader, 'dataset': {**val_dataloader['dataset'], 'pipeline': test_pipeline}}
test_evaluator = val_evaluator
