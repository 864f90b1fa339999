# SaliencyMix by itself in every step, as OpenMixup's benchmark runs it (arXiv 2209.04851), whose figures the SMMix
# paper cites; no probability is stated in the papers. The benchmark knows Beta(0.2, 0.2) and Beta(1, 1), the method's
# own, and takes its saliency from opencv-contrib: saliency='fine_grained', if that package is installed.
mixing = dict(
    augments=[dict(type='smmix_mm.SaliencyMix', alpha=1.0, saliency='spectral_residual')],
    probs=[1.0],
    same_on_all_ranks=True,
)
