# Max-min region mixing without the two additional losses, in Table 7 of the paper.
_base_ = './deit-small_smmix_8xb128-300e_in1k.py'

mixing = _base_.mixing
mixing['augments'][1]['loss'].update(fine_weight=0.0, con_weight=0.0)

model = dict(train_cfg=mixing)
