# From random weights, to compare.
_base_ = '../_base_/recipes/mask-rcnn_pvt-mini_fpn_1xb8-3e_digit-scenes.py'
