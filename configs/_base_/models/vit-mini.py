# A ViT for the pictures of the demo, about as large as pvt-mini: 8 x 8 tokens on 64 x 64 pixels.
model = dict(
    type='smmix_mm.MixingClassifier',
    # The published standard deviation of 0.02 is too small for so few channels.
    published_init=False,
    backbone=dict(
        type='mmpretrain.VisionTransformer',
        arch=dict(embed_dims=96, num_layers=4, num_heads=3, feedforward_channels=288),
        img_size=64,
        patch_size=8,
    ),
    neck=None,
    head=dict(
        type='mmpretrain.VisionTransformerClsHead',
        num_classes=10,
        in_channels=96,
        # No label smoothing, since such a short training does not overfit.
        loss=dict(type='mmpretrain.CrossEntropyLoss'),
    ),
)
