# A Swin of three stages, whose last one leaves 4 x 4 tokens of 64 x 64 pixels, for classification and for dense tasks.
family = dict(
    backbone=dict(
        type='mmpretrain.SwinTransformer',
        arch=dict(embed_dims=32, depths=[2, 2, 2], num_heads=[1, 2, 4]),
        window_size=4,
        out_indices=(2,),
        drop_path_rate=0.0,
        # For images of any size.
        pad_small_map=True,
    ),
    neck=dict(type='mmpretrain.GlobalAveragePooling'),
    head=dict(type='mmpretrain.LinearClsHead', in_channels=128),
    maps=dict(out_indices=(0, 1, 2)),
    fresh=('norm0', 'norm1'),
    pyramid=[],
    channels=[32, 64, 128],
)
