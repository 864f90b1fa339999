# CaiT-XXS-24, arXiv 2103.17239: drop path and layer scale as in that paper for this size, since the released SMMix
# scripts do not contain it.
model = dict(
    type='smmix_mm.MixingClassifier',
    backbone=dict(
        type='smmix_mm.CaiT',
        arch='xxs24',
        img_size=224,
        patch_size=16,
        drop_path_rate=0.05,
        layer_scale_init_value=1e-5,
    ),
    neck=None,
    head=dict(
        type='mmpretrain.LinearClsHead',
        num_classes=1000,
        in_channels=192,
        loss=dict(type='mmpretrain.LabelSmoothLoss', label_smooth_val=0.1, mode='original', num_classes=1000),
    ),
)
