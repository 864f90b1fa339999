# ImageNet-1k with random erasing in a quarter of the pictures, as in DeiT's own recipe and in Swin's.
_base_ = './imagenet_bs128_224.py'

train_pipeline = _base_.train_pipeline
train_pipeline[4]['erase_prob'] = 0.25

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
