# TokenMix in half of the steps, Mixup in the other half. It needs two things beside: a teacher, see ../teachers, and
# the criterion below.
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

# Goes into the head's loss: binary cross-entropy, in Mixup steps too. Stock losses divide by the batch alone, so a
# config adds loss_weight=1 / num_classes, which makes it the mean over batch and classes.
criterion = dict(use_sigmoid=True)
