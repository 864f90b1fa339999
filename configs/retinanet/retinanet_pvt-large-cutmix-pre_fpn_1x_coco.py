_base_ = '../_base_/recipes/retinanet_pvt-large_fpn_1x_coco.py'

model = dict(
    backbone=dict(
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/pvt-large_cutmix_8xb128-300e_in1k/epoch_300.pth')
    )
)
