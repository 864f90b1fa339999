# ImageNet-1k as TokenMix's released code trains on it: random erasing in a quarter of the images, and RandAugment
# before the crop.
_base_ = './imagenet_bs128_224.py'

train_pipeline = _base_.train_pipeline
train_pipeline[4]['erase_prob'] = 0.25
train_pipeline.insert(1, train_pipeline.pop(3))

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
