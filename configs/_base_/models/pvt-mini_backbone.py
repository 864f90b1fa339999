# A PVT for small pictures, shared by the three tasks of the demo. Its small strides give a 64 x 64 picture a last grid
# of 4 x 4, so that a region has more than one token.
backbone = dict(
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
    # The published standard deviation of 0.02 is too small for so few channels; torch's own, by fan-in, learns faster.
    init_cfg=dict(
        type='Kaiming',
        layer='Linear',
        a=5**0.5,
        mode='fan_in',
        nonlinearity='leaky_relu',
        distribution='uniform',
    ),
)
