# The schedule of official PVT's Semantic FPN: 80000 iterations, total batch 16 (8 GPUs x 2), no warm-up.
optim_wrapper = dict(
    type='OptimWrapper',
    # No paramwise_cfg: all parameters decay, including biases, norms and position embeddings.
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=1e-4, betas=(0.9, 0.999), eps=1e-8),
    clip_grad=None,
)

param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0.0, by_epoch=False, begin=0, end=80000)]

train_cfg = dict(type='smmix_mm.IterBasedTrainLoop', max_iters=80000, val_interval=8000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

auto_scale_lr = dict(base_batch_size=16)
