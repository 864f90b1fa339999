_base_ = ['../_base_/recipes/swin-tiny_1xb100-200e_cifar10-224.py', '../_base_/methods/tokenmix.py']

# The same model, frozen, from its CutMix run, which has to come first.
teacher = dict(
    type='mmpretrain.ImageClassifier',
    backbone=_base_.model.backbone,
    neck=_base_.model.neck,
    head=_base_.model.head,
    init_cfg=dict(type='Pretrained', checkpoint='work_dirs/swin-tiny_cutmix_1xb100-200e_cifar10-224/epoch_200.pth'),
)

model = dict(
    train_cfg=_base_.mixing,
    teacher=teacher,
    head=dict(loss=dict(loss_weight=1 / _base_.model.head.num_classes, **_base_.criterion)),
)
