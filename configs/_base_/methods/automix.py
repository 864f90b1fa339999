# AutoMix alone in every step, as in OpenMixup's benchmark (arXiv 2209.04851), whose results the SMMix paper cites.
mixing = dict(
    augments=[
        dict(
            type='smmix_mm.AutoMix',
            alpha=2.0,
            # None is the middle one: block 6 of DeiT-S's 12, the 7 x 7 map of Swin-T, stage 3 of a PVT.
            layer=None,
            momentum=0.001,
            end_momentum=0.00001,
            learn_prob=0.8,
            mask_weight=0.1,
            mask_margin=0.1,
            min_share=0.08,
            mix_block=dict(type='smmix_mm.MixBlock', reduction=2, norm=False),
        ),
    ],
    probs=[1.0],
    same_on_all_ranks=True,
)

# For paramwise_cfg.custom_keys. With smmix_mm.GroupedCosineAnnealingLR the learning rate of the mix block falls to
# 1e-4. A custom key overrides all other settings, so biases are excluded from weight decay here.
mix_block_keys = {
    '.mix_block': dict(eta_min=1e-4),
    '.mix_block.query_key.bias': dict(eta_min=1e-4, decay_mult=0.0),
    '.mix_block.value.bias': dict(eta_min=1e-4, decay_mult=0.0),
}
