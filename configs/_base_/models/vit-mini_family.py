# vit-mini's backbone for classification, and what gives maps for dense tasks: mmseg's Feature2Pyramid makes the strides
# 4, 8, 16 and 32 of the one stride of its blocks, 8.
family = dict(
    backbone=dict(
        type='mmpretrain.VisionTransformer',
        arch=dict(embed_dims=96, num_layers=4, num_heads=3, feedforward_channels=288),
        img_size=64,
        patch_size=8,
    ),
    neck=None,
    head=dict(type='mmpretrain.VisionTransformerClsHead', in_channels=96),
    maps=dict(out_type='featmap', out_indices=[0, 1, 2, 3]),
    fresh=(),
    pyramid=[dict(type='mmseg.Feature2Pyramid', embed_dim=96, rescales=[2, 1, 0.5, 0.25], norm_cfg=dict(type='BN'))],
    channels=[96, 96, 96, 96],
)
