# ImageNet-1k as TransMix's released code trains and tests on it: 32 images on each of 8 GPUs, no random erasing, crops
# resized by bilinear or bicubic interpolation at random, and a test crop of 0.9 of the image.
_base_ = './imagenet_bs128_224.py'

train_pipeline = _base_.train_pipeline
random_crop = train_pipeline[1]
train_pipeline[1] = dict(type='RandomChoice', transforms=[[random_crop], [dict(random_crop, interpolation='bilinear')]])

test_pipeline = _base_.test_pipeline
test_pipeline[1]['scale'] = 248

train_dataloader = dict(batch_size=32, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
