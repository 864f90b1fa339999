# DeiT without distillation. LayerNorm eps is 1e-6 everywhere; drop path 0.1 in the released SMMix code.
model = dict(
    type='smmix_mm.MixingClassifier',
    backbone=dict(
        type='mmpretrain.VisionTransformer',
        arch='deit-base',
        img_size=224,
        patch_size=16,
        drop_rate=0.0,
        drop_path_rate=0.1,
    ),
    neck=None,
    head=dict(
        type='mmpretrain.VisionTransformerClsHead',
        num_classes=1000,
        in_channels=768,
        loss=dict(type='mmpretrain.LabelSmoothLoss', label_smooth_val=0.1, mode='original', num_classes=1000),
    ),
)
