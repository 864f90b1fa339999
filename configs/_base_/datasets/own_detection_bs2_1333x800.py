# Images of your own with annotations in COCO's format; see docs/own_data.md. The transforms are COCO's.
_base_ = './coco_detection_bs2_1333x800.py'

# The number and the names of the classes are read from the data, and every data_root that is not set becomes this one.
own_data = True
data_root = '{{$DATA_ROOT:data/own}}'

train_dataset = dict(
    data_root=None,
    ann_file='annotations/instances_train.json',
    data_prefix=dict(img='train'),
    # Images without objects, and small ones, are also used for training.
    filter_cfg=dict(filter_empty_gt=False, min_size=0),
)
val_dataset = dict(data_root=None, ann_file='annotations/instances_val.json', data_prefix=dict(img='val'))

train_dataloader = dict(dataset=train_dataset)
val_dataloader = dict(dataset=val_dataset)
test_dataloader = dict(dataset=val_dataset)
# The annotation file of the dataset.
val_evaluator = dict(ann_file=None)
test_evaluator = val_evaluator
