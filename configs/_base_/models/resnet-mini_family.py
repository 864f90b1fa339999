# A ResNet-18 of three stages, whose last one leaves 4 x 4 places of 64 x 64 pixels, for classification and dense tasks.
family = dict(
    backbone=dict(
        type='mmpretrain.ResNet',
        depth=18,
        stem_channels=16,
        base_channels=16,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(2,),
    ),
    neck=dict(type='mmpretrain.GlobalAveragePooling'),
    head=dict(type='mmpretrain.LinearClsHead', in_channels=64),
    maps=dict(out_indices=(0, 1, 2)),
    fresh=(),
    pyramid=[],
    channels=[16, 32, 64],
)
