# The equivalent of 80k x batch 16 in half the iterations: batch 32 (8 GPUs x 4) and twice the learning rate.
_base_ = './fpn_pvt-tiny_8xb2-80k_ade20k-512x512.py'

train_dataloader = dict(batch_size=4)

optim_wrapper = dict(optimizer=dict(lr=2e-4))

param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0.0, by_epoch=False, begin=0, end=40000)]

train_cfg = dict(max_iters=40000, val_interval=4000)

default_hooks = dict(checkpoint=dict(interval=4000))

auto_scale_lr = dict(base_batch_size=32)
