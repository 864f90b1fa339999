_base_ = '../_base_/recipes/fpn_pvt-mini_1xb8-300_digit-scenes-128x128.py'

checkpoint = 'work_dirs/pvt-mini_smmix_1xb32-8e_digit-scenes/epoch_8.pth'
model = dict(backbone=dict(init_cfg=dict(_delete_=True, type='Pretrained', checkpoint=checkpoint)))
