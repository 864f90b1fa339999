# ADE20K's optimiser with a higher learning rate; 300 iterations take about a minute and a half on one core.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=1e-4, betas=(0.9, 0.999), eps=1e-8),
    clip_grad=None,
)

param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0.0, by_epoch=False, begin=0, end=300)]

train_cfg = dict(type='smmix_mm.IterBasedTrainLoop', max_iters=300, val_interval=300)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

auto_scale_lr = dict(base_batch_size=8)
