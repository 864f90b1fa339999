# A run on CIFAR-10 with images read from folders, train/<class>/<image> and test/<class>/<image>. Environment variables
# name the method (a folder of configs with such a run) and the folder of the images:
# METHOD=cutmix DATA_ROOT=/path python tools/train.py ...
_base_ = '../{{$METHOD:smmix}}/resnet-cifar_{{$METHOD:smmix}}_1xb100-200e_cifar10.py'

# The methods share this file, but not their checkpoints.
work_dir = 'work_dirs/resnet-cifar_{{$METHOD:smmix}}_1xb100-200e_cifar10-folders'

dataset_type = 'mmpretrain.CustomDataset'
data_root = '{{$DATA_ROOT:data/cifar10_folders}}'

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
