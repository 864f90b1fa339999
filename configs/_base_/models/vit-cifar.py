# A ViT for CIFAR's 32 x 32 pixels: patches of 4 x 4 make a grid of 8 x 8 tokens. DeiT-T's width, nine blocks.
model = dict(
    type='smmix_mm.MixingClassifier',
    backbone=dict(
        type='mmpretrain.VisionTransformer',
        arch=dict(embed_dims=192, num_layers=9, num_heads=3, feedforward_channels=768),
        img_size=32,
        patch_size=4,
        drop_rate=0.0,
        drop_path_rate=0.1,
    ),
    neck=None,
    head=dict(
        type='mmpretrain.VisionTransformerClsHead',
        num_classes=10,
        in_channels=192,
        loss=dict(type='mmpretrain.LabelSmoothLoss', label_smooth_val=0.1, mode='original', num_classes=10),
    ),
)
