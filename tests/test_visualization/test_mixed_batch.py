"""The picture shows what it says: its panels are the pixels of the tensors."""

import matplotlib.image
import numpy as np
import torch
from mmpretrain.models import build_classifier

from smmix_mm.visualization import draw_mixed_batch


def test_picture_shows_targets_and_sources(tmp_path):
    torch.manual_seed(0)
    model = build_classifier(
        dict(
            type='smmix_mm.MixingClassifier',
            backbone=dict(
                type='VisionTransformer',
                arch=dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=16),
                img_size=32,
                patch_size=8,
            ),
            head=dict(type='VisionTransformerClsHead', num_classes=3, in_channels=16),
            data_preprocessor=dict(mean=[100.0] * 3, std=[50.0] * 3),
        )
    )
    colours = torch.tensor([[255.0, 0, 0], [0, 255, 0]])
    images = (colours[:, :, None, None].expand(2, 3, 32, 32) - 100) / 50
    path = tmp_path / 'folder' / 'mixed.png'
    draw_mixed_batch(model, images, ['red', 'green'], path)
    picture = matplotlib.image.imread(path)[..., :3]
    pure = [(np.abs(picture - np.array(colour)).max(axis=2) < 0.02) for colour in ((1, 0, 0), (0, 1, 0))]
    # Of the twelve panels red fills one as target and one as source; four mixed ones hold both colours.
    widths = [mask.any(axis=0).sum() for mask in pure]
    assert widths[0] == widths[1]
    assert 0.9 < pure[0].sum() / pure[1].sum() < 1.1
    panel = pure[0].sum() / 4
    assert 0.5 < panel / (picture.shape[0] * picture.shape[1] / 12) < 1.0
    assert model.training
