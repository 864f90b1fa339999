# A PVT for CIFAR's 32 x 32 pixels, about as large as vit-cifar. Its small strides give the last stage the same grid of
# 8 x 8 tokens; with the published strides there would be a single token, and nothing could be mixed.
model = dict(
    type='smmix_mm.MixingClassifier',
    backbone=dict(
        type='smmix_mm.PVT',
        arch=dict(
            embed_dims=[64, 96, 192, 256],
            num_heads=[2, 3, 6, 8],
            mlp_ratios=[8, 8, 4, 4],
            depths=[2, 2, 3, 2],
            sr_ratios=[4, 2, 2, 1],
            strides=[2, 2, 1, 1],
        ),
        img_size=32,
        drop_rate=0.0,
        drop_path_rate=0.1,
    ),
    neck=None,
    head=dict(
        type='mmpretrain.LinearClsHead',
        num_classes=10,
        in_channels=256,
        loss=dict(type='mmpretrain.LabelSmoothLoss', label_smooth_val=0.1, mode='original', num_classes=10),
    ),
)
