# DeiT-S with TokenMix on CIFAR-10; runs on CIFAR-100 set their classes and their teacher's weights.
_base_ = ['./deit-small.py', '../methods/tokenmix.py']

model = dict(
    train_cfg=_base_.mixing,
    # The same model, frozen, from its CutMix run, which has to be trained first.
    teacher=dict(
        _base_.model,
        type='mmpretrain.ImageClassifier',
        head=dict(_base_.model.head, num_classes=10, loss=dict(_base_.model.head.loss, num_classes=10)),
        init_cfg=dict(
            type='Pretrained', checkpoint='work_dirs/deit-small_cutmix_1xb100-200e_cifar10-224/epoch_200.pth'
        ),
    ),
    head=dict(num_classes=10, loss=dict(num_classes=10, loss_weight=1 / 10, **_base_.criterion)),
)
