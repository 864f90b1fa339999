# SMMix with TransMix's label reconstruction on top, in Table 6 of the paper.
_base_ = './deit-small_smmix_8xb128-300e_in1k.py'

mixing = _base_.mixing
mixing['augments'][1]['label_reconstruction'] = 'transmix'

model = dict(train_cfg=mixing)
