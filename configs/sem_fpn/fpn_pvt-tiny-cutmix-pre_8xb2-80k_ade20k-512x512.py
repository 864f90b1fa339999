_base_ = '../_base_/recipes/fpn_pvt-tiny_8xb2-80k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/pvt-tiny_cutmix_8xb128-300e_in1k/epoch_300.pth')
    )
)
