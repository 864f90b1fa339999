# The 1x schedule of official PVT's Mask R-CNN: 12 epochs, total batch 16 (8 GPUs x 2).
optim_wrapper = dict(
    type='OptimWrapper',
    # No paramwise_cfg: all parameters decay, including biases, norms and position embeddings.
    optimizer=dict(type='AdamW', lr=2e-4, weight_decay=1e-4, betas=(0.9, 0.999), eps=1e-8),
    clip_grad=None,
)

param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', milestones=[8, 11], gamma=0.1, by_epoch=True, begin=0, end=12),
]

train_cfg = dict(type='smmix_mm.EpochBasedTrainLoop', max_epochs=12, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

auto_scale_lr = dict(base_batch_size=16)
