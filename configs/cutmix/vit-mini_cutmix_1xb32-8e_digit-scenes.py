# CutMix with a ViT, on the data and the schedule of the demo.
_base_ = [
    '../_base_/models/vit-mini.py',
    '../_base_/datasets/digit_scenes_bs32_64.py',
    '../_base_/schedules/digit_scenes_bs32_adamw_8e.py',
    '../_base_/default_runtime.py',
    '../_base_/methods/cutmix.py',
]

model = dict(train_cfg=_base_.mixing)

# As in DeiT, position embeddings do not decay.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'.pos_embed': dict(decay_mult=0.0)}))

default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))

# Logs the mean over all steps since the last line, of Mixup and of the other method.
log_processor = dict(window_size=100)
