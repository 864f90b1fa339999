_base_ = ['../_base_/recipes/vit-cifar_1xb100-200e_cifar100-folders.py', '../_base_/methods/tokenmix.py']

# Made for 14 x 14 tokens of 16 pixels; here the mask has the model's grid of 8 x 8, and as large a part of it.
mixing = _base_.mixing
mixing['augments'][1].update(patch_size=4, extra_tokens=5)

# The same model, frozen, from its CutMix run, which has to come first.
teacher = dict(
    type='mmpretrain.ImageClassifier',
    backbone=_base_.model.backbone,
    neck=_base_.model.neck,
    head=_base_.model.head,
    init_cfg=dict(
        type='Pretrained', checkpoint='work_dirs/vit-cifar_cutmix_1xb100-200e_cifar100-folders/epoch_200.pth'
    ),
)

model = dict(
    train_cfg=mixing,
    teacher=teacher,
    head=dict(loss=dict(loss_weight=1 / _base_.model.head.num_classes, **_base_.criterion)),
)
