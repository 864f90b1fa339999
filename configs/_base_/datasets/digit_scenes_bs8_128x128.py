# Made on first use, see smmix_mm.datasets.digit_scenes. The transforms are ADE20K's, at the pictures' own scale.
_base_ = './ade20k_bs2_512x512.py'

dataset_type = 'smmix_mm.DigitScenesSegmentation'
data_root = 'data/digit_scenes_dense'

train_pipeline = _base_.train_pipeline
val_pipeline = _base_.val_pipeline
test_pipeline = _base_.test_pipeline
train_pipeline[1]['num_classes'] = val_pipeline[3]['num_classes'] = test_pipeline[3]['num_classes'] = 11
train_pipeline[2].update(scale=(160, 128), ratio_range=(0.8, 1.25))
train_pipeline[3].update(crop_size=(128, 128))
# Digits must not be flipped.
train_pipeline[4]['prob'] = 0.0
val_pipeline[1]['scale'] = test_pipeline[1]['scale'] = (160, 128)

train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(_delete_=True, type=dataset_type, data_root=data_root, split='train', pipeline=train_pipeline),
)

val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(_delete_=True, type=dataset_type, data_root=data_root, split='val', pipeline=val_pipeline),
)

test_dataloader = {**val_dataloader, 'dataset': {**val_dataloader['dataset'], 'pipeline': test_pipeline}}
