# TransMix in half of the steps, Mixup in the other half. The released file for DeiT-S sets a probability of 0.8 under a
# key that the program ignores, so 0.5 was used. For DeiT-B 0.8 was used.
mixing = dict(
    augments=[
        dict(type='mmpretrain.Mixup', alpha=0.8),
        dict(type='smmix_mm.TransMix', alpha=1.0),
    ],
    probs=[0.5, 0.5],
    same_on_all_ranks=True,
)
