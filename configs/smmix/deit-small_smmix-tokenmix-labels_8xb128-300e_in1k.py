# SMMix with TokenMix's label reconstruction on top, in Table 6 of the paper. The teacher provides only the labels.
_base_ = ['./deit-small_smmix_8xb128-300e_in1k.py', '../_base_/teachers/deit-small_in1k.py']

mixing = _base_.mixing
mixing['augments'][1].update(label_reconstruction='tokenmix', motivated_by='model')

model = dict(train_cfg=mixing, teacher=_base_.teacher)
