# PuzzleMix alone in every step, as in OpenMixup's benchmark (arXiv 2209.04851), whose results the SMMix paper cites.
# It needs the packages gco-wrapper and scipy.
mixing = dict(
    augments=[
        dict(
            type='smmix_mm.PuzzleMix',
            alpha=1.0,
            transport=True,
            block_powers=(1, 3),
            num_labels=3,
            beta=1.2,
            gamma=0.5,
            eta=0.2,
            transport_weight=0.8,
        ),
    ],
    probs=[1.0],
    same_on_all_ranks=True,
)
