# PVT-L, arXiv 2102.12122. Drop path 0.3: official PVT; the released SMMix scripts do not contain this size.
model = dict(
    type='smmix_mm.MixingClassifier',
    backbone=dict(type='smmix_mm.PVT', arch='large', img_size=224, drop_rate=0.0, drop_path_rate=0.3),
    neck=None,
    head=dict(
        type='mmpretrain.LinearClsHead',
        num_classes=1000,
        in_channels=512,
        loss=dict(type='mmpretrain.LabelSmoothLoss', label_smooth_val=0.1, mode='original', num_classes=1000),
    ),
)
