# AutoMix by itself in every step, as OpenMixup's benchmark runs it (arXiv 2209.04851), whose figures the SMMix paper
# cites.
mixing = dict(
    augments=[
        dict(
            type='smmix_mm.AutoMix',
            alpha=2.0,
            # The middle one: block 6 of DeiT-S's 12, the 7 x 7 map of Swin-T, stage 3 of a PVT.
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

# Goes into paramwise_cfg.custom_keys, beside smmix_mm.GroupedCosineAnnealingLR: the learning rate of the mix block
# falls to 1e-4. Settings of a key take the place of all others, so biases are kept from decay here.
mix_block_keys = {
    '.mix_block': dict(eta_min=1e-4),
    '.mix_block.query_key.bias': dict(eta_min=1e-4, decay_mult=0.0),
    '.mix_block.value.bias': dict(eta_min=1e-4, decay_mult=0.0),
}
