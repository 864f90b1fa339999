# FMix by itself in every step, as OpenMixup's benchmark runs it (arXiv 2209.04851), whose figures the SMMix paper
# cites; no probability is stated in the papers.
mixing = dict(
    augments=[dict(type='smmix_mm.FMix', alpha=1.0, decay=3.0)],
    probs=[1.0],
    same_on_all_ranks=True,
)
