# OpenMixup's schedule for DeiT-S and Swin-T on ImageNet-1k (arXiv 2209.04851): gradients clipped at 5, 20 epochs of
# warm-up, and a learning rate updated in every iteration.
optim_wrapper = dict(
    # Defaults of this wrapper: on a GPU fp16 autocast with a dynamic loss scale; on the CPU bf16.
    type='smmix_mm.AmpOptimWrapper',
    # 5e-4 per 512 images of the batch.
    optimizer=dict(type='AdamW', lr=5e-4 * 1024 / 512, weight_decay=0.05, betas=(0.9, 0.999), eps=1e-8),
    clip_grad=dict(max_norm=5.0),
    # No decay on biases, norms and the class token; the runs of DeiT and Swin exclude further parameters.
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        flat_decay_mult=0.0,
        custom_keys={'.cls_token': dict(decay_mult=0.0)},
    ),
)

# mmengine's cosine begins after the warm-up; OpenMixup's spans all 300 epochs.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-5, by_epoch=True, begin=0, end=20, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=20, end=300, convert_to_iter_based=True),
]

train_cfg = dict(type='smmix_mm.EpochBasedTrainLoop', max_epochs=300, val_interval=1)
val_cfg = dict()
test_cfg = dict()

auto_scale_lr = dict(base_batch_size=1024)
