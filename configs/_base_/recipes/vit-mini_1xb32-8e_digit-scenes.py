# The demo's data and schedule with a ViT, all but the mixing.
_base_ = [
    '../models/vit-mini.py',
    '../datasets/digit_scenes_bs32_64.py',
    '../schedules/digit_scenes_bs32_adamw_8e.py',
    '../default_runtime.py',
]

# As DeiT's: no decay on position embeddings.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'.pos_embed': dict(decay_mult=0.0)}))

default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))

# What is logged is the mean over all steps since the last line, Mixup's and the other method's alike.
log_processor = dict(window_size=100)
