_base_ = '../_base_/recipes/pvt-large_8xb128-300e_in1k.py'

# The baseline: CutMix where SMMix would stand, all else equal.
model = dict(
    train_cfg=dict(
        augments=[
            dict(type='mmpretrain.Mixup', alpha=0.8),
            dict(type='mmpretrain.CutMix', alpha=1.0),
        ],
        probs=[0.5, 0.5],
        same_on_all_ranks=True,
    )
)
