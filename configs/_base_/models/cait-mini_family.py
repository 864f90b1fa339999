# A CaiT as large as vit-mini, for classification and, as in vit-mini_family.py, for dense tasks.
family = dict(
    backbone=dict(
        type='smmix_mm.CaiT',
        arch=dict(embed_dims=96, depth=4, num_heads=3, mlp_ratio=3, class_depth=1),
        img_size=64,
        patch_size=8,
        # The published 1e-5 is for many blocks and long trainings.
        layer_scale_init_value=0.1,
    ),
    neck=None,
    head=dict(type='mmpretrain.LinearClsHead', in_channels=96),
    maps=dict(out_type='featmap', out_indices=[0, 1, 2, 3]),
    fresh=(),
    pyramid=[dict(type='mmseg.Feature2Pyramid', embed_dim=96, rescales=[2, 1, 0.5, 0.25], norm_cfg=dict(type='BN'))],
    channels=[96, 96, 96, 96],
)
