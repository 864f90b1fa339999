default_scope = 'mmpretrain'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=100),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='smmix_mm.CheckpointHook', interval=1, max_keep_ckpts=3, save_best='auto'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='mmpretrain.VisualizationHook', enable=False),
    finite_loss=dict(type='smmix_mm.FiniteLossHook'),
    readable_images=dict(type='smmix_mm.ReadableImagesHook'),
    log_history=dict(type='smmix_mm.LogHistoryHook'),
)

# No exponential moving average, since SMMix's results are those of the trained weights. The runs of TransMix and
# TokenMix with DeiT add it.
custom_hooks = []

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)

vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='mmpretrain.UniversalVisualizer', vis_backends=vis_backends)

log_level = 'INFO'
load_from = None
resume = False

# The mixing methods also draw from this seed, which is the same on every rank.
randomness = dict(seed=0, deterministic=False)
