# The motivation pass at half the resolution, 112 x 112 pixels: a quarter of its cost. Not in the paper.
_base_ = './deit-small_smmix_8xb128-300e_in1k.py'

mixing = _base_.mixing
mixing['augments'][1]['motivation_scale'] = 0.5

model = dict(train_cfg=mixing)
