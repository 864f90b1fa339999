# SMMix in half of the steps, Mixup in the other half. Every default of the method is written out.
mixing = dict(
    augments=[
        dict(type='mmpretrain.Mixup', alpha=0.8),
        dict(
            type='smmix_mm.SMMix',
            side_ratio=(0.25, 0.75),
            region_rule='integer',
            placement='max_min',
            region_head='separate',
            consistency='logits',
            score=None,
            motivated_by=None,
            motivation_scale=1.0,
            motivation_autocast=True,
            label_reconstruction=None,
            loss=dict(type='smmix_mm.SMMixLoss', cls_weight=1.0, fine_weight=1.0, con_weight=1.0),
        ),
    ],
    probs=[0.5, 0.5],
    same_on_all_ranks=True,
)
