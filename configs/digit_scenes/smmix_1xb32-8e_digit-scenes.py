# SMMix on the data and the schedule of the demo. FAMILY names the model: vit, cait, swin, resnet or convnext.
_base_ = [
    '../_base_/models/{{$FAMILY:vit}}-mini_family.py',
    '../_base_/datasets/digit_scenes_bs32_64.py',
    '../_base_/schedules/digit_scenes_bs32_adamw_8e.py',
    '../_base_/default_runtime.py',
    '../_base_/methods/smmix.py',
]

# The families share this file, but not their checkpoints.
work_dir = 'work_dirs/{{$FAMILY:vit}}-mini_smmix_1xb32-8e_digit-scenes'

model = dict(
    type='smmix_mm.MixingClassifier',
    # The published initialisation is for transformers with more channels.
    published_init=False,
    backbone=_base_.family.backbone,
    neck=_base_.family.neck,
    # No label smoothing, since such a short training does not overfit.
    head=dict(num_classes=10, loss=dict(type='mmpretrain.CrossEntropyLoss'), **_base_.family.head),
    train_cfg=_base_.mixing,
)

# As in DeiT, position embeddings do not decay.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'.pos_embed': dict(decay_mult=0.0)}))

default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))
