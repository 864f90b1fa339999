# Shards parameters, gradients and the optimizer's state among the processes: one more entry of a config's _base_.
runner_type = 'FlexibleRunner'
strategy = dict(type='smmix_mm.FSDPStrategy')
