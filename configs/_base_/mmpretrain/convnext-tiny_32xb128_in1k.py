# mmpretrain's own recipe of ConvNeXt-T, 300 epochs with averaged weights (EMA), with the classifier,
# loops and hooks of this repository.
_base_ = 'mmpretrain::convnext/convnext-tiny_32xb128_in1k.py'

# The published initialisation is made for transformers.
model = dict(type='smmix_mm.MixingClassifier', published_init=False)

train_cfg = dict(_delete_=True, type='smmix_mm.EpochBasedTrainLoop', max_epochs=300, val_interval=1)
default_hooks = dict(
    checkpoint=dict(type='smmix_mm.CheckpointHook', max_keep_ckpts=3, save_best='auto'),
    finite_loss=dict(type='smmix_mm.FiniteLossHook'),
    readable_images=dict(type='smmix_mm.ReadableImagesHook'),
    log_history=dict(type='smmix_mm.LogHistoryHook'),
)
randomness = dict(seed=0)
