# CIFAR-100 from plain image folders, train/<class>/<image> and test/<class>/<image>. Where they lie is read from the
# environment: DATA_ROOT=/path python tools/train.py ...
_base_ = './cifar100_bs100_32.py'

dataset_type = 'mmpretrain.CustomDataset'
data_root = '{{$DATA_ROOT:data/cifar100_folders}}'

# Files are loaded as BGR.
data_preprocessor = dict(to_rgb=True)

train_pipeline = [dict(type='smmix_mm.LoadImage'), *_base_.train_pipeline]
test_pipeline = [dict(type='smmix_mm.LoadImage'), *_base_.test_pipeline]

train_dataloader = dict(
    dataset=dict(_delete_=True, type=dataset_type, data_root=data_root, data_prefix='train', pipeline=train_pipeline)
)
val_dataloader = dict(
    dataset=dict(_delete_=True, type=dataset_type, data_root=data_root, data_prefix='test', pipeline=test_pipeline)
)
test_dataloader = val_dataloader
