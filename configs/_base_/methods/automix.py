# AutoMix by itself in every step, as OpenMixup's benchmark runs it (arXiv 2209.04851), whose figures the SMMix paper
# cites; no probability is stated in the papers.
mixing = dict(
    augments=[
        dict(
            type='smmix_mm.AutoMix',
            alpha=2.0,
            # The middle one: block 6 of DeiT-S's 12, stage 3 of a PVT or Swin.
            layer=None,
            momentum=0.001,
            end_momentum=0.00001,
            mask_weight=0.1,
            mask_margin=0.1,
            min_share=0.08,
            mix_block=dict(type='smmix_mm.MixBlock', reduction=2),
        ),
    ],
    probs=[1.0],
    same_on_all_ranks=True,
)
