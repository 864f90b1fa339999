# DeiT gives maps of one stride, 16. mmseg's Feature2Pyramid, which mmseg uses for BEiT (arXiv 2106.08254), makes
# strides 4, 8, 16 and 32 of four of them, here from blocks at equal distances. ViTDet (arXiv 2203.16527) takes the last
# map alone, by a neck that the packages of mmdet and mmseg do not have.
backbone = dict(
    type='mmpretrain.VisionTransformer',
    arch='deit-tiny',
    img_size=224,
    patch_size=16,
    drop_path_rate=0.1,
    out_type='featmap',
    out_indices=[2, 5, 8, 11],
)
pyramid = dict(
    type='mmseg.Feature2Pyramid',
    embed_dim=192,
    rescales=[4, 2, 1, 0.5],
    norm_cfg=dict(type='SyncBN', requires_grad=True),
)
