# Regions of any side up to that of the grid, in Table 8 of the paper.
_base_ = './deit-small_smmix_8xb128-300e_in1k.py'

mixing = _base_.mixing
mixing['augments'][1]['side_ratio'] = (0.0, 1.0)

model = dict(train_cfg=mixing)
