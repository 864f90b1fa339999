_base_ = ['../_base_/recipes/deit-base_transmix_8xb32-310e_in1k.py', '../_base_/methods/transmix.py']

# The probability that the released file for this size has in force.
mixing = _base_.mixing
mixing['probs'] = [0.2, 0.8]

model = dict(train_cfg=mixing)
