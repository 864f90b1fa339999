# CIFAR-10 enlarged to the 224 x 224 pixels that DeiT and Swin are made for, as in OpenMixup's benchmark
# (arXiv 2209.04851).
dataset_type = 'mmpretrain.CIFAR10'
data_root = 'data/cifar10'

data_preprocessor = dict(
    num_classes=10,
    mean=[125.307, 122.961, 113.8575],
    std=[51.5865, 50.847, 51.255],
    # mmpretrain's CIFAR gives RGB already.
    to_rgb=False,
)

train_pipeline = [
    dict(type='smmix_mm.RandomResizedCrop', scale=224, crop_ratio_range=(0.8, 1.0), interpolation='bicubic'),
    dict(type='mmpretrain.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='mmpretrain.PackInputs'),
]

test_pipeline = [
    dict(type='mmpretrain.Resize', scale=(224, 224), backend='pillow', interpolation='bicubic'),
    dict(type='mmpretrain.PackInputs'),
]

train_dataloader = dict(
    batch_size=100,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    # Downloaded on first use if missing; download=False forbids it.
    dataset=dict(type=dataset_type, data_root=data_root, split='train', download=True, pipeline=train_pipeline),
)

val_dataloader = dict(
    batch_size=100,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type=dataset_type, data_root=data_root, split='test', download=True, pipeline=test_pipeline),
)
val_evaluator = dict(type='mmpretrain.Accuracy', topk=(1, 5))

test_dataloader = val_dataloader
test_evaluator = val_evaluator
