_base_ = [
    '../_base_/recipes/deit-small_tokenmix_8xb128-310e_in1k.py',
    '../_base_/methods/tokenmix.py',
    '../_base_/teachers/deit-small_in1k.py',
]

model = dict(
    train_cfg=_base_.mixing,
    teacher=_base_.teacher,
    head=dict(loss=dict(loss_weight=1 / _base_.model.head.num_classes, **_base_.criterion)),
)
