# A PVT for 64 x 64 pictures: small strides, so that the last grid is 4 x 4 and a region more than one token.
model = dict(
    type='smmix_mm.MixingClassifier',
    # The published standard deviation of 0.02 is too small for so few channels: torch's own, by fan-in, learns sooner.
    published_init=False,
    backbone=dict(
        type='smmix_mm.PVT',
        arch=dict(
            embed_dims=[16, 32, 80, 128],
            num_heads=[1, 2, 5, 8],
            mlp_ratios=[4, 4, 2, 2],
            depths=[1, 1, 1, 2],
            sr_ratios=[8, 4, 2, 1],
            strides=[4, 2, 2, 1],
        ),
        img_size=64,
        init_cfg=dict(
            type='Kaiming',
            layer='Linear',
            a=5**0.5,
            mode='fan_in',
            nonlinearity='leaky_relu',
            distribution='uniform',
        ),
    ),
    neck=None,
    head=dict(
        type='mmpretrain.LinearClsHead',
        num_classes=10,
        in_channels=128,
        # No label smoothing: so short a training does not overfit.
        loss=dict(type='mmpretrain.CrossEntropyLoss'),
    ),
)
