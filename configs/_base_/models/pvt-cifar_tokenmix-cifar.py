# A small PVT with TokenMix on CIFAR-10; runs on CIFAR-100 set their classes and their teacher's weights.
_base_ = ['./pvt-cifar.py', '../methods/tokenmix.py']

# TokenMix assumes 14 x 14 tokens of 16 pixels. Here the mask has the model's grid of 8 x 8 and covers as much of it.
mixing = _base_.mixing
mixing['augments'][1].update(patch_size=4, extra_tokens=5)

model = dict(
    train_cfg=mixing,
    # The same model, frozen, from its CutMix run, which has to be trained first.
    teacher=dict(
        _base_.model,
        type='mmpretrain.ImageClassifier',
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/pvt-cifar_cutmix_1xb100-200e_cifar10/epoch_200.pth'),
    ),
    head=dict(loss=dict(loss_weight=1 / 10, **_base_.criterion)),
)
