# Images of your own in folders of classes, listed in train.txt and val.txt; see docs/own_data.md. The transforms are
# ImageNet's.
_base_ = './imagenet_bs128_224.py'

# The number and the names of the classes are read from the data, and every data_root that is not set becomes this one.
own_data = True
dataset_type = 'mmpretrain.CustomDataset'
data_root = '{{$DATA_ROOT:data/own}}'

train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    # There may be fewer images than a batch has.
    drop_last=False,
    dataset=dict(
        _delete_=True, type=dataset_type, data_root=None, ann_file='train.txt', pipeline=_base_.train_pipeline
    ),
)

val_dataloader = dict(
    batch_size=32,
    num_workers=4,
    dataset=dict(_delete_=True, type=dataset_type, data_root=None, ann_file='val.txt', pipeline=_base_.test_pipeline),
)
test_dataloader = val_dataloader
