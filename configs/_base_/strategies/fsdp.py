# Shards parameters, gradients and the optimizer's state among the processes. To add to the _base_ of a config.
runner_type = 'FlexibleRunner'
strategy = dict(type='smmix_mm.FSDPStrategy')
