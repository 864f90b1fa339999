# Swin-T, arXiv 2103.14030. Drop path 0.2: official Swin; the released SMMix scripts do not contain this model.
model = dict(
    type='smmix_mm.MixingClassifier',
    backbone=dict(type='mmpretrain.SwinTransformer', arch='tiny', img_size=224, drop_rate=0.0, drop_path_rate=0.2),
    # Without a class token, the image is classified by the mean of its tokens.
    neck=dict(type='mmpretrain.GlobalAveragePooling'),
    head=dict(
        type='mmpretrain.LinearClsHead',
        num_classes=1000,
        in_channels=768,
        loss=dict(type='mmpretrain.LabelSmoothLoss', label_smooth_val=0.1, mode='original', num_classes=1000),
    ),
)
