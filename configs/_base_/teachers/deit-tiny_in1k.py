# A frozen DeiT-T from this project's own CutMix run, which has to come first:
#   bash tools/dist_train.sh configs/cutmix/deit-tiny_cutmix_8xb128-300e_in1k.py 8
# Other weights for it: --cfg-options model.teacher.init_cfg.checkpoint=PATH. Another classifier may take its place: any
# of mmpretrain's whose backbone has an adapter and whose head is linear.
teacher = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(type='mmpretrain.VisionTransformer', arch='deit-tiny', img_size=224, patch_size=16),
    head=dict(type='mmpretrain.VisionTransformerClsHead', num_classes=1000, in_channels=192),
    init_cfg=dict(type='Pretrained', checkpoint='work_dirs/deit-tiny_cutmix_8xb128-300e_in1k/epoch_300.pth'),
)
