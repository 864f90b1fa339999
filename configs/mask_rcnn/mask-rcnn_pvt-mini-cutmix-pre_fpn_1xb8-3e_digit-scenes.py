_base_ = '../_base_/recipes/mask-rcnn_pvt-mini_fpn_1xb8-3e_digit-scenes.py'

checkpoint = 'work_dirs/pvt-mini_cutmix_1xb32-8e_digit-scenes/epoch_8.pth'
model = dict(backbone=dict(init_cfg=dict(_delete_=True, type='Pretrained', checkpoint=checkpoint)))
