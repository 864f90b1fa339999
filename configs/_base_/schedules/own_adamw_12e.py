# COCO's 1x schedule with a warm-up of one epoch, since there may be fewer than COCO's 500 iterations.
_base_ = './coco_adamw_12e.py'

param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='MultiStepLR', milestones=[8, 11], gamma=0.1, by_epoch=True, begin=0, end=12),
]

# The learning rate is for a batch of 16 and scaled to the actual batch.
auto_scale_lr = dict(enable=True)
