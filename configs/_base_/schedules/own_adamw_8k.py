# ADE20K's schedule with a fifth of the iterations.
_base_ = './ade20k_adamw_40k.py'

param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0.0, by_epoch=False, begin=0, end=8000)]

train_cfg = dict(max_iters=8000, val_interval=800)

# The learning rate is for a batch of 32 and scaled to the actual batch.
auto_scale_lr = dict(enable=True)
