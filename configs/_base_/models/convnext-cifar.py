# ConvNeXt V2-A's sizes for CIFAR's 32 x 32 pixels. A stem without stride leaves a last map of 4 x 4 places.
model = dict(
    type='smmix_mm.MixingClassifier',
    backbone=dict(
        type='mmpretrain.ConvNeXt',
        arch=dict(depths=[2, 2, 6, 2], channels=[40, 80, 160, 320]),
        stem_patch_size=1,
        drop_path_rate=0.1,
        init_cfg=dict(type='TruncNormal', layer=['Conv2d', 'Linear'], std=0.02, bias=0.0),
    ),
    neck=None,
    head=dict(
        type='mmpretrain.LinearClsHead',
        num_classes=10,
        in_channels=320,
        loss=dict(type='mmpretrain.LabelSmoothLoss', label_smooth_val=0.1, mode='original', num_classes=10),
        init_cfg=dict(type='TruncNormal', layer=['Conv2d', 'Linear'], std=0.02, bias=0.0),
    ),
    # The published initialisation is made for transformers.
    published_init=False,
)
