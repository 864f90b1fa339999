# FMix by itself in every step, as OpenMixup's benchmark runs it (arXiv 2209.04851), whose figures the SMMix paper
# cites: with Beta(0.2, 0.2). The paper of the method has Beta(1, 1).
mixing = dict(
    augments=[dict(type='smmix_mm.FMix', alpha=0.2, decay=3.0)],
    probs=[1.0],
    same_on_all_ranks=True,
)
