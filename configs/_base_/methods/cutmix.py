# The baseline: CutMix in half of the steps, Mixup in the other half.
mixing = dict(
    augments=[
        dict(type='mmpretrain.Mixup', alpha=0.8),
        dict(type='mmpretrain.CutMix', alpha=1.0),
    ],
    probs=[0.5, 0.5],
    same_on_all_ranks=True,
)
