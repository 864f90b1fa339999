# TokenMix with PVT-T on ImageNet-1k. Recipe: the released SMMix code.
_base_ = [
    '../_base_/models/pvt-tiny.py',
    '../_base_/datasets/imagenet_bs128_224.py',
    '../_base_/schedules/imagenet_bs1024_adamw_300e.py',
    '../_base_/default_runtime.py',
    '../_base_/methods/tokenmix.py',
    '../_base_/teachers/deit-small_in1k.py',
]

model = dict(
    train_cfg=_base_.mixing,
    teacher=_base_.teacher,
    head=dict(loss=dict(loss_weight=1 / _base_.model.head.num_classes, **_base_.criterion)),
)
