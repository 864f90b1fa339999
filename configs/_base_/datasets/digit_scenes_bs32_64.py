# Made on first use from the handwritten digits that scikit-learn carries, see smmix_mm.DigitScenes.
dataset_type = 'smmix_mm.DigitScenes'
data_root = 'data/digit_scenes'

# The middle of the range, not of these dark pictures: around zero the norm of the patch embedding would blow the noise
# of the background up to the size of a digit.
data_preprocessor = dict(
    num_classes=10,
    mean=[127.5, 127.5, 127.5],
    std=[64.0, 64.0, 64.0],
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
