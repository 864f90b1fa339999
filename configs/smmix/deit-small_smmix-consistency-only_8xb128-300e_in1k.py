# The consistency loss alone, on regions placed as CutMix places them, in Table 7 of the paper.
_base_ = './deit-small_smmix_8xb128-300e_in1k.py'

mixing = _base_.mixing
mixing['augments'][1]['placement'] = 'cutmix'
mixing['augments'][1]['loss']['fine_weight'] = 0.0

model = dict(train_cfg=mixing)
