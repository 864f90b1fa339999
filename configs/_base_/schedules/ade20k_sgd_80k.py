# The optimiser of mmseg's Semantic FPN with ResNet-50, which mmseg trains for 160000 iterations on ADE20K, at the 80000
# of official PVT's; total batch 16.
_base_ = './ade20k_adamw_80k.py'

optim_wrapper = dict(optimizer=dict(_delete_=True, type='SGD', lr=0.01, momentum=0.9, weight_decay=5e-4))

param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=1e-4, by_epoch=False, begin=0, end=80000)]
