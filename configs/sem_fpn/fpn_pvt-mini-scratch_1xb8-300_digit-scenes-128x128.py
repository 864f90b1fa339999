# From random weights, to compare.
_base_ = '../_base_/recipes/fpn_pvt-mini_1xb8-300_digit-scenes-128x128.py'
