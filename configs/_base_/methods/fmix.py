# FMix alone in every step, as in OpenMixup's benchmark (arXiv 2209.04851), whose results the SMMix paper cites. The
# benchmark uses Beta(0.2, 0.2), the FMix paper Beta(1, 1).
mixing = dict(
    augments=[dict(type='smmix_mm.FMix', alpha=0.2, decay=3.0)],
    probs=[1.0],
    same_on_all_ranks=True,
)
