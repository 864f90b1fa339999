# Mixup alone in every step.
mixing = dict(
    augments=[dict(type='mmpretrain.Mixup', alpha=0.8)],
    probs=[1.0],
    same_on_all_ranks=True,
)
