"""The picture shows what it says: its panels are the pixels of the tensors."""

import itertools
import runpy
from pathlib import Path

import cv2
import matplotlib.image
import numpy as np
import pytest
import torch
from conftest import CLASSES, METHODS
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from mmengine.config import Config

from smmix_mm.checkpoint import write_weights
from smmix_mm.engine import build_model
from smmix_mm.mixing import step_streams
from smmix_mm.visualization import (
    Panel,
    draw_mixed_batch,
    draw_mixtures,
    draw_panels,
    save_figure,
    to_array,
    to_pictures,
    trace_mixing,
)

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / 'configs/smmix/pvt-mini_smmix_1xb32-8e_digit-scenes.py'


def small_model(make_classifier, method='SMMix', **settings):
    """A classifier of 5 classes that mixes by one method, with a teacher where the method needs one."""
    teacher = make_classifier(type='mmpretrain.ImageClassifier') if method in ('TokenMix', 'AttentiveMix') else None
    preprocessor = dict(mean=[100.0] * 3, std=[50.0] * 3, to_rgb=True)
    return make_classifier(
        augments=[METHODS[method]], teacher=teacher, data_preprocessor=preprocessor, **settings
    ).eval()


def labelled(count):
    """Preprocessed noise, and one-hot labels of 5 classes, some of them several times."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, 3, 32, 32))
    return (torch.as_tensor(pixels).float() - 100) / 50, torch.eye(CLASSES)[torch.arange(count) % CLASSES]


def panel_boxes(figure, picture):
    """The pixels (top, left, bottom, right) of each panel of a saved picture, as floats."""
    height = picture.shape[0]
    boxes = [axis.get_window_extent() for axis in figure.axes if axis.images]
    return [(height - box.y1, box.x0, height - box.y0, box.x1) for box in boxes]


def save_and_read(figure, path):
    save_figure(figure, path)
    return (matplotlib.image.imread(path)[..., :3] * 255).round().astype(np.uint8)


def read_panel(picture, box, side=32):
    """Reads the pixels of an image back from the middle of what each of them fills."""
    top, left, bottom, right = box
    rows = top + (np.arange(side) + 0.5) * (bottom - top) / side
    cols = left + (np.arange(side) + 0.5) * (right - left) / side
    return picture[rows.astype(int)[:, None], cols.astype(int)[None]]


def read_outline(picture, box, colour, side=32):
    """Finds an outline of that colour in a panel: top, left, bottom, right in pixels of the image."""
    top, left, bottom, right = box
    inside = picture[int(top) - 3 : int(bottom) + 4, int(left) - 3 : int(right) + 4].astype(int)
    rows, cols = np.nonzero(np.abs(inside - colour).max(axis=2) < 40)
    # The middle of the line.
    half = 2 * 120 / 72 / 2
    found = [rows.min() + half, cols.min() + half, rows.max() + 1 - half, cols.max() + 1 - half]
    start = (int(top) - 3 - top, int(left) - 3 - left) * 2
    scale = (side / (bottom - top), side / (right - left)) * 2
    return tuple((value + begin) * factor for value, begin, factor in zip(found, start, scale, strict=True))


def find_windows(target, source, mixed, patch=8):
    """Brute force: which window of the target changed, and where in the source its new content comes from."""
    changed = (target != mixed).any(0).nonzero()
    (top, left), (bottom, right) = changed.amin(0).tolist(), (changed.amax(0) + 1).tolist()
    content = mixed[:, top:bottom, left:right]
    rows, cols = content.shape[1:]
    (cut,) = [
        (row, col, row + rows, col + cols)
        for row in range(0, 33 - rows, patch)
        for col in range(0, 33 - cols, patch)
        if source[:, row : row + rows, col : col + cols].equal(content)
    ]
    return cut, (top, left, bottom, right)


def test_windows_are_drawn_where_the_mixing_put_them_and_pixels_are_the_batch(make_classifier, tmp_path):
    """Both read back from the picture, and compared with what the classifier itself makes of the batch."""
    model = small_model(make_classifier)
    images, targets = labelled(4)
    method = model.mixing.methods[0]
    mixed = model.mix(method, images.clone(), targets, step_streams(3, 7)).images
    mixture = trace_mixing(model, method, images, targets, step_streams(3, 7))
    figure = draw_mixtures(model, {'SMMix': mixture}, ['a', 'b', 'c', 'd'], 'title')
    picture = save_and_read(figure, tmp_path / 'mixed.png')
    boxes = panel_boxes(figure, picture)
    assert len(boxes) == 4 * 5
    sizes = set()
    for index in range(4):
        target, told_target, source, told_source, result = boxes[5 * index : 5 * index + 5]
        cut, pasted = find_windows(images[index], images[3 - index], mixed[index])
        sizes.add((cut[2] - cut[0], cut[3] - cut[1]))
        assert read_outline(picture, told_target, (0, 255, 255)) == pytest.approx(pasted, abs=0.4)
        assert read_outline(picture, told_source, (255, 0, 0)) == pytest.approx(cut, abs=0.4)
        for box, image in ((target, images[index]), (source, images[3 - index]), (result, mixed[index])):
            np.testing.assert_array_equal(read_panel(picture, box), (image * 50 + 100).permute(1, 2, 0).round())
    assert len(sizes) == 1


@pytest.mark.parametrize('name', METHODS)
def test_any_method_is_traced(make_classifier, name):
    """Labels are those of the classifier itself, and every pixel lies between those of the two images."""
    model = small_model(make_classifier, name)
    # More images than classes.
    images, targets = labelled(7)
    # Each of one colour.
    images = images.mean(dim=(1, 2, 3), keepdim=True) + torch.arange(7.0).view(-1, 1, 1, 1).expand(7, 3, 32, 32)
    method = model.mixing.methods[0]
    streams = step_streams(1, 2)
    mixture = trace_mixing(model, method, images, targets, streams)
    mixed = model.mix(method, images.clone(), targets, step_streams(1, 2))
    features = model.adapter.read(mixed.images, class_attention=True)
    labels = method.relabel(features, mixed)[:7]
    torch.testing.assert_close(mixture.shares @ targets, labels)
    assert mixture.mixed.equal(mixed.images[:7])
    # It did not use the streams up.
    assert streams.local.bit_generator.state == step_streams(1, 2).local.bit_generator.state
    moved = 0
    for index, source in enumerate(mixture.sources.tolist()):
        own, other = images[index].mean(), images[source].mean()
        low, high = min(own, other) - 1e-4, max(own, other) + 1e-4
        assert (mixture.mixed[index] >= low).all()
        assert (mixture.mixed[index] <= high).all()
        moved += source != index
    assert moved >= 4
    assert mixture.by_teacher == (name in ('TokenMix', 'AttentiveMix'))
    assert (mixture.scores is None) == (name not in ('SMMix', 'TokenMix', 'AttentiveMix', 'PuzzleMix'))
    assert (mixture.cut is None) == (name not in ('SMMix', 'TransMix'))
    figure = draw_mixtures(model, {name: mixture}, [str(index) for index in range(7)], num_rows=2)
    assert len([axis for axis in figure.axes if axis.images]) == 2 * (3 if mixture.scores is None else 5)


def test_box_of_transmix_is_drawn_around_what_it_pasted(make_classifier):
    model = small_model(make_classifier, 'TransMix')
    images, targets = labelled(2)
    mixture = trace_mixing(model, model.mixing.methods[0], images, targets, step_streams(1, 0))
    changed = (mixture.mixed[0] != images[0]).any(0).nonzero()
    box = (*changed.amin(0).tolist(), *(changed.amax(0) + 1).tolist())
    assert mixture.cut == mixture.pasted == [box] * 2


def test_captions_hold_classes_and_shares(make_classifier):
    model = small_model(make_classifier)
    images, targets = labelled(4)
    mixture = trace_mixing(model, model.mixing.methods[0], images, targets, step_streams(0, 0))
    share = mixture.shares[0, 3].item()
    names = ['tench, Tinca tinca', 'b', 'b', 'a class of a very long name indeed']
    captions = [axis.get_xlabel() for axis in draw_mixtures(model, {'SMMix': mixture}, names).axes]
    larger, smaller = (
        (f'a class of a very l…: {share:.2f}', f'tench: {1 - share:.2f}')
        if share > 0.5
        else (f'tench: {1 - share:.2f}', f'a class of a very l…: {share:.2f}')
    )
    assert captions[:5] == ['tench', 'pasted over: cyan', 'a class of a very l…', 'cut: red', f'{larger}\n{smaller}']
    # Source and target of one class.
    assert captions[9] == 'b: 1.00'


def test_methods_of_other_pairs_are_refused(make_classifier):
    model = small_model(make_classifier, 'FMix')
    images, targets = labelled(6)
    mixtures = {
        str(seed): trace_mixing(model, model.mixing.methods[0], images, targets, step_streams(seed, 0))
        for seed in range(2)
    }
    with pytest.raises(ValueError, match='0, 1 pair the images differently'):
        draw_mixtures(model, mixtures, list('abcdef'))


def test_blue_stays_blue_where_a_model_gets_bgr(make_classifier):
    images = torch.zeros(1, 3, 32, 32)
    images[:, 0] = 1
    for to_rgb, colour in ((True, [1, 0, 0]), (False, [0, 0, 1])):
        preprocessor = dict(mean=[0.0] * 3, std=[255.0] * 3, to_rgb=to_rgb)
        model = make_classifier(data_preprocessor=preprocessor)
        assert to_pictures(model.data_preprocessor, images)[0, 5, 5].tolist() == colour


@pytest.mark.parametrize('size', [(32, 32), (224, 224), (64, 320)])
def test_nothing_overlaps(size):
    """Texts of full length, in pictures of several sizes and with a colour bar."""
    text = 'twenty-four characters aa\ntwenty-four characters $$'
    panel = Panel(np.zeros((*size, 3)), text, text)
    figure = draw_panels([[panel] * 4, [panel] * 3], 'A title\nof two lines', 'attention')
    picture = to_array(figure)
    renderer = figure.canvas.get_renderer()
    texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    parts = [part.get_window_extent(renderer) for part in (*texts, *(axis.patch for axis in figure.axes))]
    for one, other in itertools.combinations(parts, 2):
        shared = Bbox.intersection(one, other)
        # Labels of the colour bar's ticks touch it.
        assert shared is None or min(shared.width, shared.height) < 1.5, (one, other)
    for part in parts:
        assert part.x0 >= -0.5
        assert part.y0 >= -0.5
        assert part.x1 <= picture.shape[1] + 0.5
        assert part.y1 <= picture.shape[0] + 0.5


def test_the_demo_picture_has_the_attention_of_both_and_two_methods(make_classifier, tmp_path, monkeypatch):
    model = small_model(make_classifier).train()
    figures = []
    monkeypatch.setattr(Figure, 'savefig', lambda figure, path, **_: figures.append(figure))
    draw_mixed_batch(model, labelled(2)[0], ['red', 'green'], tmp_path / 'folder' / 'mixed.png')
    titles = [axis.get_title() for axis in figures[0].axes[:12]]
    told = ["target's attention", 'source', "source's attention"]
    assert titles == ['target', *told, 'SMMix', 'CutMix', *[''] * 6]
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

    # Panels come before the colour bar.
    axes = np.array(figures[0].axes[:24]).reshape(4, 6)
    chosen = [files[16 + index] for index in torch.linspace(0, 15, 4).long().tolist()]
    for row, path in enumerate(chosen):
        pixels = cv2.imread(str(path))[..., ::-1]
        np.testing.assert_array_equal(axes[row][0].images[0].get_array(), pixels)
        np.testing.assert_allclose(seen[0][row].permute(1, 2, 0).numpy(), (pixels - 127.5) / 64, atol=1e-5)
