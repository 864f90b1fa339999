# A smaller version of Mask R-CNN on COCO. The third stage is left out, as it has the stride of the fourth.
_base_ = ['./mask-rcnn_pvt-tiny_fpn.py', './pvt-mini_backbone.py']

model = dict(
    # As in pretraining, see the datasets.
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[64.0, 64.0, 64.0]),
    backbone=dict(_delete_=True, out_type='featmap', out_indices=[0, 1, 3], **_base_.backbone),
    neck=dict(in_channels=[16, 32, 128], out_channels=32, num_outs=4),
    rpn_head=dict(in_channels=32, feat_channels=32, anchor_generator=dict(strides=[4, 8, 16, 32])),
    roi_head=dict(
        # Digits have 26 to 44 pixels, so both use the finest map.
        bbox_roi_extractor=dict(out_channels=32, featmap_strides=[4, 8, 16]),
        bbox_head=dict(in_channels=32, fc_out_channels=128, num_classes=10),
        mask_roi_extractor=dict(out_channels=32, featmap_strides=[4, 8, 16]),
        mask_head=dict(num_convs=2, in_channels=32, conv_out_channels=32, num_classes=10),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)),
        rpn_proposal=dict(nms_pre=300, max_per_img=100),
        rcnn=dict(sampler=dict(num=64)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=100), rcnn=dict(max_per_img=20)),
)
