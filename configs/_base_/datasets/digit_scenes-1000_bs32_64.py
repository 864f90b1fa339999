# A thousand training images; the validation images are as many as in the whole set.
_base_ = './digit_scenes_bs32_64.py'

data_root = 'data/digit_scenes_1000'
dataset = dict(data_root=data_root, sizes=dict(train=1000))

train_dataloader = dict(dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = dict(dataset=dataset)
