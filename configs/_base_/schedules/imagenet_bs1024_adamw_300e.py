# The schedule of the released SMMix code: 300 epochs, total batch 1024 (8 GPUs x 128).
optim_wrapper = dict(
    # Defaults of this wrapper: on a GPU fp16 autocast with a dynamic loss scale, as released; on the CPU bf16.
    type='smmix_mm.AmpOptimWrapper',
    # 5e-4 per 512 images of the batch.
    optimizer=dict(type='AdamW', lr=5e-4 * 1024 / 512, weight_decay=0.05, betas=(0.9, 0.999), eps=1e-8),
    clip_grad=None,
    # No decay on biases, norms and the class token. PVT's position embeddings decay; DeiT's runs exclude theirs.
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        flat_decay_mult=0.0,
        custom_keys={'.cls_token': dict(decay_mult=0.0)},
    ),
)

# mmengine's stock schedulers. The released code steps timm's scheduler once per epoch and one epoch late, and its
# cosine spans all 300 epochs. After the warm-up the two differ by a few per cent at most. There, neither bound scales
# with the batch; here, --auto-scale-lr scales the lower bound of the warm-up along with lr.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=5, end=300),
]

train_cfg = dict(type='smmix_mm.EpochBasedTrainLoop', max_epochs=300, val_interval=1)
val_cfg = dict()
test_cfg = dict()

auto_scale_lr = dict(base_batch_size=1024)
