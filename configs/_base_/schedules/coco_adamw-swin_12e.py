# The 1x schedule of mmdet's Mask R-CNN with Swin-T: 12 epochs, total batch 16 (8 GPUs x 2).
_base_ = './coco_adamw_12e.py'

optim_wrapper = dict(
    optimizer=dict(lr=1e-4, weight_decay=0.05),
    # mmdet does not let these decay either; of the position embeddings DeiT's and CaiT's are added.
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        custom_keys={
            '.pos_embed': dict(decay_mult=0.0),
            'absolute_pos_embed': dict(decay_mult=0.0),
            'relative_position_bias_table': dict(decay_mult=0.0),
        },
    ),
)

param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', milestones=[8, 11], gamma=0.1, by_epoch=True, begin=0, end=12),
]
