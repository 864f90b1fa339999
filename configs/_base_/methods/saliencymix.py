# SaliencyMix alone in every step, as in OpenMixup's benchmark (arXiv 2209.04851), whose results the SMMix paper cites.
# The benchmark uses Beta(0.2, 0.2). The SaliencyMix paper uses Beta(1, 1) and the detector of opencv-contrib, which
# saliency='fine_grained' selects if that package is installed.
mixing = dict(
    augments=[dict(type='smmix_mm.SaliencyMix', alpha=0.2, saliency='spectral_residual')],
    probs=[1.0],
    same_on_all_ranks=True,
)
