# Detection in the demo, from pretrained weights.
_base_ = './mask-rcnn_pvt-mini-scratch_fpn_1xb8-3e_digit-scenes.py'

model = dict(
    backbone=dict(
        # To start from other weights: --cfg-options model.backbone.init_cfg.checkpoint=PATH
        init_cfg=dict(
            _delete_=True, type='Pretrained', checkpoint='work_dirs/pvt-mini_smmix_1xb32-8e_digit-scenes/epoch_8.pth'
        )
    )
)
