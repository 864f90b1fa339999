"""The picture shows what it says: its panels are the pixels of the tensors."""

import runpy
from pathlib import Path

import cv2
import matplotlib.image
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from mmengine.config import Config
from mmpretrain.models import build_classifier

from smmix_mm.checkpoint import write_weights
from smmix_mm.engine import build_model
from smmix_mm.visualization import draw_mixed_batch

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / 'configs/smmix/pvt-mini_smmix_1xb32-8e_digit-scenes.py'


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


def test_a_model_without_its_preprocessing_is_refused(tmp_path):
    cfg = Config.fromfile(CONFIG)
    cfg.pop('data_preprocessor')
    with pytest.raises(ValueError, match=r'mean and std.*build_model\(cfg\)'):
        draw_mixed_batch(build_model(cfg), torch.zeros(2, 3, 64, 64), ['a', 'b'], tmp_path / 'mixed.png')


def test_the_demo_shows_the_colours_of_the_files_and_what_the_model_saw(tmp_path, monkeypatch):
    """The panels are the files' pixels, and the model is asked about them as it was trained on them."""
    files, label = [], 0
    for split in ('train', 'val'):
        for label in range(2):
            folder = tmp_path / 'data' / split / f'class_{label}'
            folder.mkdir(parents=True)
            for index in range(8):
                # Blue, green and red differ, so that a swap of channels shows.
                image = np.random.default_rng(index).integers(0, 256, (64, 64, 3)) * [1, 0.5, 0.2]
                cv2.imwrite(str(folder / f'{index}.png'), image.astype(np.uint8))
                files.append(folder / f'{index}.png')
    text = CONFIG.read_text().replace('../_base_', str(ROOT / 'configs/_base_'))
    dataset = dict(type='mmpretrain.CustomDataset', data_root=str(tmp_path / 'data'), data_prefix='val')
    (tmp_path / 'config.py').write_text(
        f'{text}\nval_dataloader = dict(dataset=dict(_delete_=True, pipeline=_base_.test_pipeline, **{dataset}))\n'
    )
    cfg = Config.fromfile(tmp_path / 'config.py')
    write_weights(tmp_path / 'epoch_1.pth', build_model(cfg).state_dict())

    demo = runpy.run_path(str(ROOT / 'tools/demo.py'), run_name='demo')
    figures, seen = [], []
    monkeypatch.setattr(Figure, 'savefig', lambda figure, path, **_: figures.append(figure))
    monkeypatch.chdir(tmp_path)
    run = demo['Run']('smmix', str(tmp_path / 'config.py'))
    run.work_dir.mkdir(parents=True)
    (run.work_dir / 'last_checkpoint').write_text(str(tmp_path / 'epoch_1.pth'))
    build = demo['save_mixed_batch'].__globals__['build_model']

    def build_and_watch(cfg):
        model = build(cfg)
        model.backbone.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        return model

    monkeypatch.setitem(demo['save_mixed_batch'].__globals__, 'build_model', build_and_watch)
    demo['save_mixed_batch'](run)

    axes = np.array(figures[0].axes).reshape(4, 6)
    chosen = [files[16 + index] for index in torch.linspace(0, 15, 4).long().tolist()]
    for row, path in enumerate(chosen):
        pixels = cv2.imread(str(path))[..., ::-1]
        np.testing.assert_allclose(axes[row][0].images[0].get_array(), pixels / 255, atol=1e-6)
        np.testing.assert_allclose(seen[0][row].permute(1, 2, 0).numpy(), (pixels - 127.5) / 64, atol=1e-5)
