# The default runtime with an exponential moving average of the weights, as TransMix's and TokenMix's released codes
# keep it: timm's decay of 0.99996. Validation and tests score the averaged weights.
_base_ = './default_runtime.py'

custom_hooks = [dict(type='mmpretrain.EMAHook', momentum=1 - 0.99996, priority='ABOVE_NORMAL')]
