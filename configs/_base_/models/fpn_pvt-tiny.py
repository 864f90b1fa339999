# Semantic FPN, arXiv 1901.02446, on PVT-T: mmseg's Semantic FPN R-50, on which official PVT builds too.
model = dict(
    type='mmseg.EncoderDecoder',
    data_preprocessor=dict(
        type='mmseg.SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        # Training crops of pictures that are smaller than the crop are padded to it, the labels with 'ignored'.
        size=(512, 512),
        pad_val=0,
        seg_pad_val=255,
    ),
    # Drop path 0.1 in all sizes: official PVT.
    backbone=dict(type='smmix_mm.PVT', arch='tiny', img_size=224, out_type='featmap', drop_path_rate=0.1),
    neck=dict(type='mmseg.FPN', in_channels=[64, 128, 320, 512], out_channels=256, num_outs=4),
    decode_head=dict(
        type='mmseg.FPNHead',
        in_channels=[256, 256, 256, 256],
        in_index=[0, 1, 2, 3],
        feature_strides=[4, 8, 16, 32],
        channels=128,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        align_corners=False,
        loss_decode=dict(type='mmseg.CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
