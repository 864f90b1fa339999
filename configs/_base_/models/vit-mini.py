# A ViT for the pictures of the demo, about as large as pvt-mini: 8 x 8 tokens on 64 x 64 pixels.
_base_ = './vit-mini_family.py'

model = dict(
    type='smmix_mm.MixingClassifier',
    # The published standard deviation of 0.02 is too small for so few channels.
    published_init=False,
    backbone=_base_.family.backbone,
    neck=_base_.family.neck,
    # No label smoothing, since such a short training does not overfit.
    head=dict(num_classes=10, loss=dict(type='mmpretrain.CrossEntropyLoss'), **_base_.family.head),
)
