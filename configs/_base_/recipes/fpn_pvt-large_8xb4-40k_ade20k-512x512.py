# Semantic FPN with PVT-L on ADE20K.
_base_ = './fpn_pvt-tiny_8xb4-40k_ade20k-512x512.py'

model = dict(backbone=dict(arch='large'))
