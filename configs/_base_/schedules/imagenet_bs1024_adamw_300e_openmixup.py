# OpenMixup's schedule for DeiT-S and Swin-T on ImageNet-1k (arXiv 2209.04851): gradients clipped at 5, 20 epochs of
# warm-up, and a learning rate that falls with every iteration.
_base_ = './imagenet_bs1024_adamw_300e.py'

optim_wrapper = dict(clip_grad=dict(_delete_=True, max_norm=5.0))

# As in the base, mmengine's cosine begins after the warm-up; OpenMixup's spans all 300 epochs.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-5, by_epoch=True, begin=0, end=20, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=20, end=300, convert_to_iter_based=True),
]
