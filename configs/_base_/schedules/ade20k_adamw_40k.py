# Equivalent of official PVT's schedule in half the iterations: 40000 iterations with a total batch of 32 (8 GPUs x 4)
# and twice the learning rate, no warm-up.
optim_wrapper = dict(
    type='OptimWrapper',
    # No paramwise_cfg: all parameters decay, including biases, norms and position embeddings.
    optimizer=dict(type='AdamW', lr=2e-4, weight_decay=1e-4, betas=(0.9, 0.999), eps=1e-8),
    clip_grad=None,
)

param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0.0, by_epoch=False, begin=0, end=40000)]

train_cfg = dict(type='smmix_mm.IterBasedTrainLoop', max_iters=40000, val_interval=4000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

auto_scale_lr = dict(base_batch_size=32)
