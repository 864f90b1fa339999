# Semantic FPN with PVT-M on ADE20K.
_base_ = './fpn_pvt-tiny_8xb2-80k_ade20k-512x512.py'

model = dict(backbone=dict(arch='medium'))
