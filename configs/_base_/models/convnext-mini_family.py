# A ConvNeXt whose stem has half the usual stride, so that 4 x 4 places are left of 64 x 64 pixels, for classification
# and for dense tasks.
family = dict(
    backbone=dict(
        type='mmpretrain.ConvNeXt',
        arch=dict(depths=[1, 1, 2, 1], channels=[16, 32, 64, 128]),
        stem_patch_size=2,
    ),
    neck=None,
    head=dict(type='mmpretrain.LinearClsHead', in_channels=128),
    maps=dict(out_indices=(1, 2, 3), gap_before_final_norm=False),
    fresh=('norm1', 'norm2'),
    pyramid=[],
    channels=[32, 64, 128],
)
