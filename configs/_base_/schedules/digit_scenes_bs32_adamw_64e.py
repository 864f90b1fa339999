# The schedule of eight epochs, stretched, for an eighth of the pictures.
_base_ = ['digit_scenes_bs32_adamw_8e.py']

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, begin=0, end=8, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=8, end=64, convert_to_iter_based=True),
]

train_cfg = dict(max_epochs=64, val_interval=16)
