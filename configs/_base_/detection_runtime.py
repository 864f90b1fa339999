_base_ = './default_runtime.py'

default_scope = 'mmdet'

default_hooks = dict(
    logger=dict(interval=50),
    checkpoint=dict(save_best='coco/bbox_mAP'),
    visualization=dict(_delete_=True, type='mmdet.DetVisualizationHook'),
)

visualizer = dict(_delete_=True, type='mmdet.DetLocalVisualizer', name='visualizer', vis_backends=_base_.vis_backends)

log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)
