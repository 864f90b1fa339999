# mmpretrain's own ResizeMix by itself in every step, as OpenMixup's benchmark runs it (arXiv 2209.04851), whose figures
# the SMMix paper cites; no probability is stated in the papers.
mixing = dict(
    augments=[dict(type='mmpretrain.ResizeMix', alpha=1.0, lam_min=0.1, lam_max=0.8)],
    probs=[1.0],
    same_on_all_ranks=True,
)
