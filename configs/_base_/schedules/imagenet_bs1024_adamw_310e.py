# timm's schedule of 300 epochs and the 10 at the lowest learning rate that its scripts add, as in TransMix's and
# TokenMix's released codes.
_base_ = './imagenet_bs1024_adamw_300e.py'

train_cfg = dict(max_epochs=310)
