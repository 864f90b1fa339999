# Motivated by a frozen DeiT-T instead of the model itself, in Table 9 of the paper.
_base_ = ['./deit-tiny_smmix_8xb128-300e_in1k.py', '../_base_/teachers/deit-tiny_in1k.py']

mixing = _base_.mixing
mixing['augments'][1]['motivated_by'] = 'teacher'

model = dict(train_cfg=mixing, teacher=_base_.teacher)
