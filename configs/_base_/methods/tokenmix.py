# TokenMix in half of the steps, Mixup in the other half. It also needs a teacher, see ../teachers, and the criterion
# below.
mixing = dict(
    augments=[
        dict(type='mmpretrain.Mixup', alpha=0.8),
        dict(
            type='smmix_mm.TokenMix',
            mask='block',
            patch_size=16,
            share=0.5,
            extra_tokens=14,
            min_aspect=0.3,
        ),
    ],
    probs=[0.5, 0.5],
    same_on_all_ranks=True,
)

# For the head's loss: binary cross-entropy, also in Mixup steps. Stock losses divide only by the batch size, so configs
# add loss_weight=1 / num_classes to get the mean over batch and classes.
criterion = dict(use_sigmoid=True)
