# Made on first use from the handwritten digits that scikit-learn carries, see smmix_mm.DigitScenes.
dataset_type = 'smmix_mm.DigitScenes'
data_root = 'data/digit_scenes'

data_preprocessor = dict(
    num_classes=10,
    mean=[58.5, 58.5, 58.5],
    std=[60.0, 60.0, 60.0],
    to_rgb=True,
)

# Digits must not be flipped, and they stand anywhere already: no augmentation but the mixing.
train_pipeline = [
    dict(type='smmix_mm.LoadImage', imdecode_backend='cv2'),
    dict(type='mmpretrain.PackInputs'),
]

test_pipeline = [
    dict(type='smmix_mm.LoadImage', imdecode_backend='cv2'),
    dict(type='mmpretrain.PackInputs'),
]

train_dataloader = dict(
    batch_size=32,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type=dataset_type, data_root=data_root, split='train', pipeline=train_pipeline),
)

val_dataloader = dict(
    batch_size=250,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type=dataset_type, data_root=data_root, split='val', pipeline=test_pipeline),
)
val_evaluator = dict(type='mmpretrain.Accuracy', topk=(1,))

test_dataloader = val_dataloader
test_evaluator = val_evaluator
