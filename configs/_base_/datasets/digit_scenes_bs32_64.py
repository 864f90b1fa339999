# Generated on first use from scikit-learn's handwritten digits, see smmix_mm.DigitScenes.
dataset_type = 'smmix_mm.DigitScenes'
data_root = 'data/digit_scenes'

# The middle of the pixel range, not the mean of these dark pictures. With a background around zero, the norm of the
# patch embedding would amplify its noise to the strength of a digit.
data_preprocessor = dict(
    num_classes=10,
    mean=[127.5, 127.5, 127.5],
    std=[64.0, 64.0, 64.0],
    to_rgb=True,
)

# No augmentation except mixing: digits must not be flipped, and their positions already vary.
train_pipeline = [
    dict(type='smmix_mm.LoadImage', imdecode_backend='cv2'),
    dict(type='mmpretrain.PackInputs'),
]

test_pipeline = [
    dict(type='smmix_mm.LoadImage', imdecode_backend='cv2'),
    dict(type='mmpretrain.PackInputs'),
]

# For --tta of tools/test.py: the picture, and its middle enlarged, since digits must not be flipped.
tta_pipeline = [
    test_pipeline[0],
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='mmpretrain.Resize', scale=scale) for scale in (64, 72)],
            [dict(type='mmpretrain.CenterCrop', crop_size=64)],
            test_pipeline[-1:],
        ],
    ),
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
