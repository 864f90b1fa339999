# ResizeMix alone in every step, as in OpenMixup's benchmark (arXiv 2209.04851), whose results the SMMix paper cites.
# mmpretrain.ResizeMix pastes twice the area.
mixing = dict(
    augments=[dict(type='smmix_mm.ResizeMix', side_ratio=(0.1, 0.8), interpolation='nearest')],
    probs=[1.0],
    same_on_all_ranks=True,
)
