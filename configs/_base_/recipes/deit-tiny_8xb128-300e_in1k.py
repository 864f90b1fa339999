# DeiT-T on ImageNet-1k, all but the mixing: the released SMMix code, which follows DeiT (arXiv 2012.12877).
_base_ = [
    '../models/deit-tiny.py',
    '../datasets/imagenet_bs128_224.py',
    '../schedules/imagenet_bs1024_adamw_300e.py',
    '../default_runtime.py',
]

# DeiT keeps its position embeddings from decay too.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'.pos_embed': dict(decay_mult=0.0)}))
