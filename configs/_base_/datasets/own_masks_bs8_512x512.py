# Images and masks of your own; see docs/own_data.md. The transforms are ADE20K's.
_base_ = './ade20k_bs2_512x512.py'

# The number and the names of the classes are read from class_values.txt, and every data_root that is not set becomes
# this one.
own_data = True
dataset_type = 'mmseg.BaseSegDataset'
data_root = '{{$DATA_ROOT:data/own}}'

# num_classes and the values of the classes are filled in.
load_mask = dict(type='smmix_mm.LoadLabelMap', num_classes=2)
train_pipeline = [_base_.train_pipeline[0], load_mask, *_base_.train_pipeline[2:]]
val_pipeline = [*_base_.val_pipeline[:3], load_mask, _base_.val_pipeline[4]]
test_pipeline = [*_base_.test_pipeline[:3], load_mask, _base_.test_pipeline[4]]

# The suffix None stands for the commonest in the folder.
own_dataset = dict(_delete_=True, type=dataset_type, data_root=None, img_suffix=None, seg_map_suffix=None)

train_dataloader = dict(
    batch_size=8,
    dataset=dict(
        data_prefix=dict(img_path='img_dir/train', seg_map_path='ann_dir/train'),
        pipeline=train_pipeline,
        **own_dataset,
    ),
)
val_dataset = dict(data_prefix=dict(img_path='img_dir/val', seg_map_path='ann_dir/val'), **own_dataset)
val_dataloader = dict(dataset=dict(pipeline=val_pipeline, **val_dataset))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline, **val_dataset))
