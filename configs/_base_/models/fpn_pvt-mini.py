# A smaller version of Semantic FPN on ADE20K. The third stage is left out, as it has the stride of the fourth.
_base_ = ['./fpn_pvt-tiny.py', './pvt-mini_backbone.py']

model = dict(
    # As in pretraining, see the datasets.
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[64.0, 64.0, 64.0], size=(128, 128)),
    backbone=dict(_delete_=True, out_type='featmap', out_indices=[0, 1, 3], **_base_.backbone),
    neck=dict(in_channels=[16, 32, 128], out_channels=128, num_outs=3),
    decode_head=dict(
        in_channels=[128, 128, 128],
        in_index=[0, 1, 2],
        feature_strides=[4, 8, 16],
        num_classes=11,
        # Nine of ten pixels are background. With full weight, a short run would predict little else.
        loss_decode=dict(_delete_=True, type='smmix_mm.ClassWeightedCrossEntropy', class_weight=[0.2, *[1.0] * 10]),
    ),
)
