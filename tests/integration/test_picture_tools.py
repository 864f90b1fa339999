"""The tools of tools/visualization on small models and folders."""

import copy
import re
import runpy
import shutil
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from processes import ROOT, run
from resumable import small_config, write_images

from smmix_mm.checkpoint import write_weights
from smmix_mm.engine import build_model, build_runner
from smmix_mm.models import MixingClassifier
from smmix_mm.registry import MODELS
from smmix_mm.visualization import draw_mixtures, draw_panels, map_class_activation

TOOLS = ROOT / 'tools/visualization'
# Draws SMMix and Mixup in the first three steps.
SEED = 5


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Data, a config and a checkpoint of random weights, for one tool each."""
    folder = tmp_path_factory.mktemp('pictures')
    for split in ('train', 'val'):
        write_images(folder / split, 24)
    cfg = small_config(folder)
    cfg.test_dataloader = copy.deepcopy(cfg.val_dataloader)
    cfg.train_dataloader.num_workers = 0
    cfg.dump(folder / 'config.py')
    write_weights(folder / 'model.pth', initial_model(cfg).state_dict())
    return folder


def initial_model(cfg):
    torch.manual_seed(0)
    model = build_model(cfg)
    model.init_weights()
    # Neither uniform attention nor equal logits.
    with torch.no_grad():
        model.head.layers.head.weight.normal_()
        model.backbone.layers[-1].attn.qkv.weight.mul_(40)
    return model


def call(monkeypatch, tool, *args, **replaced):
    """Runs a tool in this process with some of its functions replaced."""
    monkeypatch.syspath_prepend(str(TOOLS))
    scope = runpy.run_path(str(TOOLS / tool), run_name='tool')
    main = scope['main']
    main.__globals__.update(replaced)
    monkeypatch.setattr(sys, 'argv', [tool, *map(str, args)])
    monkeypatch.chdir(ROOT)
    main()


def read(path):
    picture = cv2.imread(str(path))
    assert picture is not None, path
    return picture


def test_batches_are_those_of_a_training(folder, monkeypatch, tmp_path):
    """The first steps with the same seed: images, method, and what came of them."""
    browsed, trained = [], []

    def draw(model, mixtures, labels, title, rows):
        browsed.append((mixtures, labels))
        return draw_mixtures(model, mixtures, labels, title, rows)

    call(
        monkeypatch, 'browse_mixing.py', folder / 'config.py', folder / 'model.pth',
        '--number', 3, '--seed', SEED, '--out', tmp_path, draw_mixtures=draw,
    )  # fmt: skip

    mix = MixingClassifier.mix

    def watch(model, method, images, targets, streams):
        inputs = images.clone()
        trained.append((inputs, mix(model, method, images, targets, streams)))
        return trained[-1][1]

    monkeypatch.setattr(MixingClassifier, 'mix', watch)
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    cfg = Config.fromfile(folder / 'config.py')
    cfg.merge_from_dict({
        'work_dir': str(tmp_path / 'run'),
        'train_cfg.max_epochs': 1,
        'load_from': str(folder / 'model.pth'),
        # The weights stay, since attention decides about the mixing.
        'optim_wrapper.optimizer.lr': 0.0,
        'default_hooks.checkpoint.save_best': None,
        'log_level': 'WARNING',
        'randomness.seed': SEED,
    })  # fmt: skip
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = cfg.test_dataloader = None
    build_runner(cfg).train()
    assert len(browsed) == len(trained) == 3
    names = set()
    for (mixtures, labels), (inputs, mixed) in zip(browsed, trained, strict=True):
        ((name, mixture),) = mixtures.items()
        names.add(name)
        assert mixture.images.equal(inputs)
        torch.testing.assert_close(mixture.mixed, mixed.images)
        one_hot = torch.eye(4)[[int(label.removeprefix('class')) for label in labels]]
        torch.testing.assert_close(mixture.shares @ one_hot, mixed.targets)
    assert names == {'SMMix', 'Mixup'}
    assert len(list(tmp_path.glob('config_*.png'))) == 3


def test_named_methods_mix_the_same_batch(folder, tmp_path):
    methods = ('attentivemix', 'automix', 'unmixed')
    done = run(
        'visualization/browse_mixing.py', folder / 'config.py', folder / 'model.pth', '--rows', 2,
        '--method', *methods, '--set', 'attentivemix.cell_size=8', '--out', tmp_path,
    )  # fmt: skip
    named = [line for line in done.stdout.splitlines() if line.endswith('.png')]
    assert named == [str(tmp_path / f'{method}_1.png') for method in methods]
    sizes = {method: read(tmp_path / f'{method}_1.png').shape for method in methods}
    # AutoMix's mix block is not in the checkpoint.
    assert done.stderr.count('model.pth has no weights of the mixing method; they are random') == 1
    # Attention makes a picture wider.
    assert sizes['attentivemix'][1] > 1.5 * sizes['automix'][1]
    assert sizes['unmixed'][1] == sizes['automix'][1]


@pytest.mark.parametrize(
    'options, message',
    [
        (['--method', 'mix'], "there is no method 'mix'; known are attentivemix, automix"),
        (['--number', '0'], '--number has to be at least 1, but got 0'),
        (['--set', 'patch_size=4'], "METHOD.SETTING=VALUE with a method of .*, but got 'patch_size'"),
        (['--method', 'tokenmix'], 'tokenmix needs a teacher: name a CHECKPOINT'),
        (['--cfg-options', 'train_dataloader.dataset.data_root=nowhere'], 'nowhere'),
        (['missing.pth'], 'there is no checkpoint missing.pth'),
        (['--cfg-options', 'model.type=mmpretrain.ImageClassifier', 'model.train_cfg=None'], 'MixingClassifier'),
    ],
)
def test_bad_input_of_browse_mixing(folder, monkeypatch, capsys, tmp_path, options, message):
    with pytest.raises((SystemExit, ValueError, FileNotFoundError)) as caught:
        call(monkeypatch, 'browse_mixing.py', folder / 'config.py', *options, '--out', tmp_path)
    assert re.search(message, str(caught.value) + capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_another_number_of_classes_is_refused(folder, monkeypatch, tmp_path):
    """Of the checkpoint, of the data's folders, or of a dataset that names its classes."""
    other = {'model.head.num_classes': 7, 'data_preprocessor.num_classes': 7}
    config, checkpoint = write_other(folder, tmp_path, **other)
    with pytest.raises(ValueError, match=r'other\.pth does not fit(.|\n)*head\.layers\.head\.weight'):
        call(monkeypatch, 'browse_mixing.py', folder / 'config.py', checkpoint)
    with pytest.raises(ValueError, match=r'num_classes is 7(.|\n)* has 4 classes'):
        call(monkeypatch, 'browse_mixing.py', config, checkpoint)
    common = runpy.run_path(str(TOOLS / 'common.py'))
    dataset = SimpleNamespace(metainfo=dict(classes=('ant', 'bee')))
    assert common['class_names'](dataset, 2) == ['ant', 'bee']
    with pytest.raises(ValueError, match='num_classes of the head is 7, but SimpleNamespace has 2 classes'):
        common['class_names'](dataset, 7)


def test_a_folder_of_images_with_some_that_cannot_be_read(folder, tmp_path):
    images = tmp_path / 'images'
    write_images(images, 4, classes=2)
    shutil.copy(images / 'class0/0.jpg', images / 'class0/0.jpeg')
    (images / 'broken.png').write_bytes(b'no image')
    (images / 'class1/notes.txt').write_text('not an image')
    (tmp_path / 'empty').mkdir()
    done = run(
        'visualization/attention_map.py', folder / 'config.py', folder / 'model.pth',
        images, tmp_path / 'empty', tmp_path / 'missing.jpg', images / 'class1/1.jpg', '--out', tmp_path / 'out',
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    drawn = sorted(str(path.relative_to(tmp_path / 'out')) for path in (tmp_path / 'out').rglob('*.png'))
    assert drawn == ['1.png', 'class0/0.png', 'class0/0_2.png', 'class0/2.png', 'class1/1.png', 'class1/3.png']
    assert [line.split(':')[0] for line in done.stderr.splitlines() if line.startswith('skipped')] == [
        f'skipped {path}' for path in (images / 'broken.png', tmp_path / 'empty', tmp_path / 'missing.jpg')
    ]
    assert '3 of 9 could not be read' in done.stderr
    assert np.array_equal(read(tmp_path / 'out/class0/0.png')[60:], read(tmp_path / 'out/class0/0_2.png')[60:])


@pytest.mark.parametrize('family', ['vit', 'pvt', 'cait', 'swin', 'resnet'])
def test_attention_of_every_family(family, make_classifier, monkeypatch):
    """Panels are named after what they show, and show what the adapter reads."""
    monkeypatch.syspath_prepend(str(TOOLS))
    tool = runpy.run_path(str(TOOLS / 'attention_map.py'), run_name='tool')
    preprocessor = dict(mean=[127.5] * 3, std=[60.0] * 3)
    if family == 'resnet':
        parts = dict(
            backbone=dict(type='mmpretrain.ResNet_CIFAR', depth=18),
            neck=dict(type='mmpretrain.GlobalAveragePooling'),
            head=dict(type='mmpretrain.LinearClsHead', num_classes=5, in_channels=512),
        )
        model = MODELS.build(dict(type='mmpretrain.ImageClassifier', data_preprocessor=preprocessor, **parts)).eval()
    else:
        model = make_classifier(family, data_preprocessor=preprocessor).eval()
    adapter = tool['build_adapter'](model.backbone)
    images = torch.randn(1, 3, 32, 32)
    seen = []
    tool['main'].__globals__['overlay'] = lambda pictures, scores: seen.append(scores) or pictures
    figure = tool['draw'](model, adapter, images, list('abcde'), 'title')
    titles = [axis.get_title() for axis in figure.axes if axis.images]
    names = {'swin': ['image attention'], 'resnet': ['activation']}
    assert titles == ['what the model sees', *names.get(family, ['image attention', 'class attention'])]
    features = adapter.read(images, attention=True, class_attention=True)
    assert seen[0].equal(features.attention)
    assert seen[-1].equal(features.class_attention)
    chances = model(images).softmax(dim=1)
    label = 'abcde'[chances.argmax()]
    assert figure.axes[0].get_xlabel() == f'predicted {label}: {chances.max():.2f}'


def test_class_names_come_from_the_checkpoint(folder, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(TOOLS))
    common = runpy.run_path(str(TOOLS / 'common.py'))
    content = torch.load(folder / 'model.pth', weights_only=False)
    content['meta'] = dict(dataset_meta=dict(classes=['ant', 'bee', 'cat', 'dog']))
    torch.save(content, tmp_path / 'named.pth')
    names = common['stored_class_names']
    assert names(tmp_path / 'named.pth', 4) == ['ant', 'bee', 'cat', 'dog']
    assert names(folder / 'model.pth', 2) == ['class 0', 'class 1']
    with pytest.raises(ValueError, match=r'named\.pth has 4 classes'):
        names(tmp_path / 'named.pth', 5)


def write_other(folder, path, **settings):
    """The config of another model, and its weights."""
    cfg = Config.fromfile(folder / 'config.py')
    cfg.merge_from_dict(settings)
    cfg.dump(path / 'other.py')
    write_weights(path / 'other.pth', initial_model(cfg).state_dict())
    return path / 'other.py', path / 'other.pth'


def test_class_activation_maps_of_two_models(folder, monkeypatch, tmp_path):
    """Each row and column is what it says: the picture, the model and the class."""
    pytest.importorskip('pytorch_grad_cam')
    asked, panels = [], []

    def ask(model, images, labels):
        asked.append((model, images, labels))
        return map_class_activation(model, images, labels)

    def draw(rows, title, scale):
        panels.extend(rows)
        return draw_panels(rows, title, scale)

    # A stock classifier of another depth.
    stock = {'model.type': 'mmpretrain.ImageClassifier', 'model.train_cfg': None, 'model.backbone.arch.num_layers': 2}
    other = write_other(folder, tmp_path, **stock)
    call(
        monkeypatch, 'vis_cam.py', folder / 'config.py', folder / 'model.pth', '--other', *other, '--number', 2,
        '--out', tmp_path / 'cam.png', map_class_activation=ask, draw_panels=draw,
    )  # fmt: skip
    assert read(tmp_path / 'cam.png').std() > 10
    assert [len(row) for row in panels] == [5] * 6
    assert [panel.title for panel in panels[0]] == ['source', 'config\ny_A', 'config\ny_B', 'other\ny_A', 'other\ny_B']
    first, second = asked[0][0], asked[2][0]
    assert [model for model, _, _ in asked[:4]] == [first, first, second, second]
    (source, target, mixed) = asked[0][1]
    labels = [call_[2][0] for call_ in asked[:2]]
    assert labels[0] != labels[1]
    assert [row[0].caption for row in panels[:2]] == [f'y_A: class{labels[0]}', f'y_B: class{labels[1]}']
    for image, row in zip((source, target, mixed), panels[:3], strict=True):
        # The model gets BGR.
        pixels = (image.flip(0).permute(1, 2, 0) * 60 + 127.5) / 255
        np.testing.assert_allclose(row[0].pixels, pixels, atol=1e-6)
        for number, panel in enumerate(row[1:]):
            chance = (first, second)[number // 2](image[None]).softmax(dim=1)[0, labels[number % 2]].item()
            assert panel.caption == f'{("y_A", "y_B")[number % 2]}: p = {chance:.2f}'
    # Some of its pixels are the target's, others come from the source.
    kept = (mixed == target).all(dim=0)
    assert 0 < kept.sum() < kept.numel()
    assert set(mixed[:, ~kept].flatten().tolist()) <= set(source.flatten().tolist())


def test_bad_input_of_vis_cam(folder, monkeypatch, tmp_path):
    config, checkpoint = folder / 'config.py', folder / 'model.pth'
    with pytest.raises(ValueError, match='--number 13 needs 26 validation images, but there are 24'):
        call(monkeypatch, 'vis_cam.py', config, checkpoint, '--number', 13)
    other = write_other(folder, tmp_path, **{'model.head.num_classes': 6, 'data_preprocessor.num_classes': 6})
    with pytest.raises(ValueError, match='other has classes=6, and config 4'):
        call(monkeypatch, 'vis_cam.py', config, checkpoint, '--other', *other)
