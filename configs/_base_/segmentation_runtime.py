_base_ = './default_runtime.py'

default_scope = 'mmseg'

# All intervals count iterations, since the training loop has no epochs.
default_hooks = dict(
    logger=dict(interval=50, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=8000, save_best='mIoU'),
    visualization=dict(_delete_=True, type='mmseg.SegVisualizationHook'),
)

visualizer = dict(_delete_=True, type='mmseg.SegLocalVisualizer', name='visualizer', vis_backends=_base_.vis_backends)

log_processor = dict(type='LogProcessor', window_size=50, by_epoch=False)
