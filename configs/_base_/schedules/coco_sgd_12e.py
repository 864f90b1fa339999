# The 1x schedule of mmdet: 12 epochs, total batch 16 (8 GPUs x 2).
_base_ = './coco_adamw_12e.py'

optim_wrapper = dict(optimizer=dict(_delete_=True, type='SGD', lr=0.02, momentum=0.9, weight_decay=1e-4))
