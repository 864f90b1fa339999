# 300 iterations, about a minute and a half on one core.
_base_ = './ade20k_adamw_80k.py'

optim_wrapper = dict(optimizer=dict(lr=5e-4))

param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0.0, by_epoch=False, begin=0, end=300)]

train_cfg = dict(max_iters=300, val_interval=300)

auto_scale_lr = dict(base_batch_size=8)
