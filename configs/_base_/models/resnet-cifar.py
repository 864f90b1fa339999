# A ResNet-18 for CIFAR's 32 x 32 pixels with half the usual channels: its last map has 4 x 4 places of 256 channels.
model = dict(
    type='smmix_mm.MixingClassifier',
    backbone=dict(type='mmpretrain.ResNet_CIFAR', depth=18, stem_channels=32, base_channels=32),
    neck=dict(type='mmpretrain.GlobalAveragePooling'),
    head=dict(
        type='mmpretrain.LinearClsHead',
        num_classes=10,
        in_channels=256,
        loss=dict(type='mmpretrain.LabelSmoothLoss', label_smooth_val=0.1, mode='original', num_classes=10),
    ),
    # The published initialisation is made for transformers.
    published_init=False,
)
