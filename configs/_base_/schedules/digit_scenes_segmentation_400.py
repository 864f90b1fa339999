# About a minute on one core. Twice the learning rate, or full weight on the background, end at 'all is background'.
_base_ = './ade20k_adamw_80k.py'

optim_wrapper = dict(optimizer=dict(lr=5e-4))

param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0.0, by_epoch=False, begin=0, end=400)]

train_cfg = dict(max_iters=400, val_interval=400)

auto_scale_lr = dict(base_batch_size=8)
