# A frozen DeiT-S from this project's own CutMix run, which has to be trained first:
#   bash tools/dist_train.sh configs/cutmix/deit-small_cutmix_8xb128-300e_in1k.py 8
# --cfg-options model.teacher.init_cfg.checkpoint=PATH selects other weights. The teacher can be any classifier of
# mmpretrain whose backbone has an adapter and whose head is linear.
teacher = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(type='mmpretrain.VisionTransformer', arch='deit-small', img_size=224, patch_size=16),
    head=dict(type='mmpretrain.VisionTransformerClsHead', num_classes=1000, in_channels=384),
    init_cfg=dict(type='Pretrained', checkpoint='work_dirs/deit-small_cutmix_8xb128-300e_in1k/epoch_300.pth'),
)
