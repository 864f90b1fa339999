"""Our inferencers against tools/test.py on the same files, with pictures as phones and other programs write them."""

import json
import math
import re
import runpy
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import load
from PIL import Image
from processes import ROOT, run
from test_docs import read_example
from unsafe_pickle import EvalOnLoad

from smmix_mm.apis import DetInferencer, ImageClassificationInferencer, MMSegInferencer, export_onnx
from smmix_mm.datasets import LoadImage
from smmix_mm.datasets.load_image import UnknownRangeError, UnreadableImageError
from smmix_mm.engine import build_model

pytestmark = pytest.mark.filterwarnings('ignore')

CONFIGS = dict(
    classification='smmix/pvt-mini_smmix_1xb32-8e_digit-scenes.py',
    detection='mask_rcnn/mask-rcnn_pvt-mini-scratch_fpn_1xb8-3e_digit-scenes.py',
    segmentation='sem_fpn/fpn_pvt-mini-scratch_1xb8-300_digit-scenes-128x128.py',
)
INFERENCERS = dict(classification=ImageClassificationInferencer, detection=DetInferencer, segmentation=MMSegInferencer)
DEMOS = dict(
    classification='image_classification.py', detection='object_detection.py', segmentation='semantic_segmentation.py'
)
CLASSES = tuple(f'class {index}' for index in range(11))
every_task = pytest.mark.parametrize('task', CONFIGS)


@dataclass
class Trained:
    """A config that tests on a folder of pictures, and a checkpoint."""

    task: str
    config: str
    checkpoint: str
    folder: Path

    def infer(self, inputs, **options):
        """The data samples."""
        found = INFERENCERS[self.task](self.config, self.checkpoint, device='cpu')(
            inputs, return_datasamples=True, **options
        )
        if self.task == 'detection':
            return found['predictions']
        return found if isinstance(found, list) else [found]


def write_pictures(folder: Path) -> None:
    """JPEG of colour, turned, and of CMYK; PNG of 16 bits and with alpha; an animated GIF. Named in order."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    small = Image.fromarray(rng.integers(0, 256, (10, 14, 3), dtype=np.uint8))
    picture = small.resize((141, 100), Image.Resampling.BICUBIC)
    picture.save(folder / '0.jpg')
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(folder / '1.jpg', exif=exif)
    picture.convert('CMYK').save(folder / '2.jpg')
    grey = np.asarray(picture.convert('L')).astype(np.uint16)
    Image.fromarray(grey * 257).save(folder / '3.png')
    picture.convert('RGBA').save(folder / '4.png')
    picture.save(folder / '5.gif', save_all=True, append_images=[picture.rotate(180)])
    (folder / 'notes.txt').write_text('no picture')


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """One :class:`Trained` of each task."""
    root = tmp_path_factory.mktemp('trained')
    write_pictures(root / 'pictures')
    made = {}

    def make(task):
        if task in made:
            return made[task]
        cfg = Config.fromfile(ROOT / 'configs' / CONFIGS[task])
        pipeline = cfg.test_dataloader.dataset.pipeline
        if task == 'classification':
            pipeline = [dict(type='smmix_mm.LoadImage'), dict(type='Resize', scale=(64, 64)), pipeline[-1]]
            dataset = dict(
                type='mmpretrain.CustomDataset', data_prefix='', with_label=False, extensions=('.jpg', '.png', '.gif')
            )
        elif task == 'detection':
            # Few objects are drawn faster.
            cfg.model.test_cfg.rcnn.max_per_img = 5
            images = [dict(id=index, file_name=file.name, **upright_size(file)) for index, file in pictures_in(root)]
            categories = [dict(id=index, name=name) for index, name in enumerate(CLASSES[:10])]
            content = dict(images=images, annotations=[], categories=categories)
            (root / 'pictures.json').write_text(json.dumps(content))
            pipeline = [step for step in pipeline if 'LoadInstances' not in step['type']]
            dataset = dict(
                type='mmdet.CocoDataset',
                ann_file=str(root / 'pictures.json'),
                data_prefix=dict(img=''),
                metainfo=dict(classes=CLASSES[:10]),
                test_mode=True,
            )
        else:
            listed = [file.name for _, file in pictures_in(root)]
            (root / 'pictures.txt').write_text('\n'.join(listed))
            pipeline = [step for step in pipeline if 'LoadLabelMap' not in step['type']]
            dataset = dict(
                type='mmseg.BaseSegDataset',
                img_suffix='',
                ann_file=str(root / 'pictures.txt'),
                data_prefix=dict(img_path=''),
                metainfo=dict(classes=CLASSES),
                test_mode=True,
            )
        cfg.test_dataloader.update(batch_size=1, num_workers=0, persistent_workers=False)
        cfg.test_dataloader.dataset = dict(data_root=str(root / 'pictures'), pipeline=pipeline, **dataset)
        cfg.test_evaluator = dict(type='DumpResults', out_file_path=str(root / f'{task}.pkl'))
        cfg.dump(root / f'{task}.py')
        torch.manual_seed(0)
        model = build_model(cfg)
        if task == 'detection':
            # Scores of random weights are all alike.
            torch.nn.init.normal_(model.roi_head.bbox_head.fc_cls.bias, std=2)
        meta = dict(dataset_meta=dict(classes=CLASSES, palette=[[20 * index, 0, 0] for index in range(11)]))
        torch.save(dict(meta=meta, state_dict=model.state_dict()), root / f'{task}.pth')
        made[task] = Trained(task, str(root / f'{task}.py'), str(root / f'{task}.pth'), root / 'pictures')
        return made[task]

    return make


def pictures_in(root):
    return list(enumerate(sorted(file for file in (root / 'pictures').iterdir() if file.suffix != '.txt')))


def upright_size(file):
    turned = file.name == '1.jpg'
    return dict(width=100 if turned else 141, height=141 if turned else 100)


def results_of(sample):
    """What a data sample predicts, as arrays; mmengine's DumpResults writes dicts."""
    sample = sample if isinstance(sample, dict) else sample.to_dict()
    if 'pred_score' in sample:
        return [sample['pred_score']]
    if 'pred_sem_seg' in sample:
        return [sample[name]['data'] for name in ('seg_logits', 'pred_sem_seg')]
    return [sample['pred_instances'][name] for name in ('bboxes', 'scores', 'labels', 'masks')]


def assert_same(found, expected, tolerance):
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        for value, wanted in zip(results_of(one), results_of(other), strict=True):
            value, wanted = torch.as_tensor(value), torch.as_tensor(wanted)
            assert value.shape == wanted.shape
            if not wanted.is_floating_point():
                # Classes, and masks, where rounding turns a pixel that is near the threshold.
                assert (value != wanted).double().mean() <= 10 * tolerance
                continue
            # Of a share: boxes are in pixels.
            assert (value - wanted).abs().max() <= tolerance * max(1, wanted.abs().max())


@every_task
def test_as_the_test_of_the_same_pictures(trained, task, tmp_path):
    made = trained(task)
    run('test.py', made.config, made.checkpoint, '--work-dir', tmp_path, *(
        ['--out', made.config.replace('.py', '.pkl')] if task == 'classification' else []
    ))  # fmt: skip
    expected = load(made.config.replace('.py', '.pkl'))
    assert [Path(sample['img_path']).name[0] for sample in expected] == list('012345')
    if task == 'detection':
        assert sum(len(sample['pred_instances']['scores']) for sample in expected) > 0
    files = [str(file) for _, file in pictures_in(made.folder.parent)]
    from_folder = made.infer(str(made.folder))
    assert_same(from_folder, expected, 0)
    # Other batches are rounded differently. A detector pads the pictures of a batch to the same size, which changes
    # what it sees of the smaller ones.
    batched = [index for index in range(6) if task != 'detection' or index != 1]
    found = made.infer([Path(files[index]) for index in batched], batch_size=4)
    assert_same(found, [expected[index] for index in batched], 1e-5)
    assert_same(made.infer(files[1]), expected[1:2], 0)
    arrays = [LoadImage()(dict(img_path=file))['img'] for file in files]
    assert_same(made.infer(arrays), expected, 0)
    # Grey of 16 bits, as files of it are read.
    assert_same(made.infer(np.asarray(Image.open(files[3]), dtype=np.uint16)), expected[3:4], 0)
    # All pictures show the same, so they differ little, but not one is another.
    assert not torch.as_tensor(results_of(expected[0])[0]).equal(torch.as_tensor(results_of(expected[3])[0]))


@every_task
def test_demo_draws_pictures_of_every_kind(trained, task, tmp_path, monkeypatch, capsys):
    made = trained(task)
    folder = '--show-dir' if task == 'classification' else '--out-dir'
    options = ['--pred-score-thr', '0'] if task == 'detection' else []
    script = ROOT / 'demo' / DEMOS[task]
    arguments = [str(made.folder), made.config, made.checkpoint, folder, str(tmp_path), '--device', 'cpu', *options]
    monkeypatch.setattr(sys, 'argv', [str(script), *arguments])
    runpy.run_path(str(script), run_name='__main__')
    drawn = tmp_path if task == 'classification' else tmp_path / 'vis'
    assert [file.name for file in sorted(drawn.iterdir())] == [f'{index}.png' for index in range(6)]
    for _, file in pictures_in(made.folder.parent):
        picture = Image.open(drawn / file.with_suffix('.png').name)
        size = upright_size(file)
        # Enlarged by the smallest whole factor that leaves room for classes and scores.
        factor = math.ceil(384 / min(size.values()))
        assert dict(width=picture.width // factor, height=picture.height // factor) == size
        original = LoadImage()(dict(img_path=str(file)))['img'][..., ::-1]
        assert not np.array_equal(np.asarray(picture.convert('RGB'))[::factor, ::factor], original)
    if task == 'classification':
        # The progress bar may share a line with them.
        lines = re.findall(r'{.*?}', capsys.readouterr().out)
        assert [set(json.loads(line)) for line in lines] == [{'img_path', 'pred_label', 'pred_score', 'pred_class'}] * 6
        assert all(json.loads(line)['pred_class'].startswith('class ') for line in lines)
    elif task == 'detection':
        written = [json.loads((tmp_path / f'preds/{index}.json').read_text()) for index in range(6)]
        assert all(prediction.keys() >= {'labels', 'scores', 'bboxes', 'masks'} for prediction in written)
    else:
        sizes = [Image.open(tmp_path / f'pred/{index:08d}_pred.png').size for index in range(6)]
        assert sizes == [(141, 100), (100, 141), *[(141, 100)] * 4]


@every_task
def test_pictures_that_cannot_be_read_are_refused_by_name(trained, task, tmp_path):
    made = trained(task)
    inferencer = INFERENCERS[task](made.config, made.checkpoint, device='cpu')
    floats, torn = tmp_path / 'floats.tiff', tmp_path / 'torn.jpg'
    Image.fromarray(np.float32([[0.0, 0.5], [0.75, 1.0]])).save(floats)
    torn.write_bytes((made.folder / '0.jpg').read_bytes()[:600])
    with pytest.raises(UnknownRangeError, match=f'image {floats} holds floats .* save it with 8 bits'):
        inferencer(str(floats))
    with pytest.raises(UnreadableImageError, match=f'image {torn} cannot be read'):
        inferencer([str(made.folder / '0.jpg'), str(torn)])
    with pytest.raises(UnreadableImageError, match=r'gone\.png cannot be read'):
        inferencer(str(tmp_path / 'gone.png'))
    with pytest.raises(UnknownRangeError, match='the array given to LoadImage is float64'):
        inferencer(np.zeros((40, 40, 3)))
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match='empty holds no pictures'):
        inferencer(str(tmp_path / 'empty'))
    with pytest.raises(TypeError, match='pictures have to be files, arrays or a folder, but got Tensor'):
        inferencer([torch.zeros(3, 40, 40)])


@every_task
def test_checkpoints_are_loaded_whole_and_not_executed(trained, task, tmp_path):
    made, build = trained(task), INFERENCERS[task]
    content = torch.load(made.checkpoint, weights_only=False)
    name = next(iter(content['state_dict']))
    value = content['state_dict'].pop(name)
    torch.save(content, tmp_path / 'part.pth')
    with pytest.raises(ValueError, match=rf'part\.pth does not fit (.|\n)*Missing .*{name}'):
        build(made.config, str(tmp_path / 'part.pth'), device='cpu')
    content['state_dict'][name] = value
    content['state_dict']['neck.extra'] = value
    torch.save(content, tmp_path / 'more.pth')
    with pytest.raises(ValueError, match=r'neck\.extra'):
        build(made.config, str(tmp_path / 'more.pth'), device='cpu')
    content['state_dict']['neck.extra'] = EvalOnLoad(tmp_path / 'executed')
    torch.save(content, tmp_path / 'hostile.pth')
    with pytest.raises(ValueError, match='objects of unsupported types'):
        build(made.config, str(tmp_path / 'hostile.pth'), device='cpu')
    assert not (tmp_path / 'executed').exists()
    for arguments in ((None, made.checkpoint), (made.checkpoint, None)):
        with pytest.raises(ValueError, match=r'needs a config file, but got .* not executed'):
            build(*arguments)
    with pytest.raises(ValueError, match='needs a checkpoint, but got None'):
        build(made.config, None)


def test_training_only_parts_do_not_matter(trained, tmp_path, capfd):
    """SMMix's region classifier is not needed, and is not complained about."""
    made = trained('classification')
    (expected,) = made.infer(str(made.folder / '0.jpg'))
    content = torch.load(made.checkpoint, weights_only=False)
    trained_only = [name for name in content['state_dict'] if name.startswith('region_head.')]
    assert trained_only
    without = {name: value for name, value in content['state_dict'].items() if name not in trained_only}
    torch.save(dict(content, state_dict=without), tmp_path / 'without.pth')
    cfg = Config.fromfile(made.config)
    cfg.model.type = 'mmpretrain.ImageClassifier'
    cfg.model.pop('train_cfg')
    cfg.model.pop('published_init')
    capfd.readouterr()
    for config, checkpoint in ((made.config, tmp_path / 'without.pth'), (cfg, made.checkpoint)):
        inferencer = ImageClassificationInferencer(config, checkpoint, device='cpu')
        (found,) = inferencer(str(made.folder / '0.jpg'), return_datasamples=True)
        assert found.pred_score.equal(expected.pred_score)
    assert 'region_head' not in ''.join(capfd.readouterr())


def test_names_of_drawings_are_unique(trained, tmp_path):
    made = trained('classification')
    shutil.copy(made.folder / '0.jpg', tmp_path / '0.jpg')
    inferencer = ImageClassificationInferencer(made.config, made.checkpoint, device='cpu')
    array = np.full((40, 60), 70, dtype=np.uint8)
    for _ in range(2):
        inferencer([str(made.folder / '0.jpg'), str(tmp_path / '0.jpg'), array], show_dir=str(tmp_path / 'drawn'))
        names = sorted(file.name for file in (tmp_path / 'drawn').iterdir())
        assert names == ['0.png', '00000002.png', '0_2.png']


def test_a_size_that_is_asked_for_is_that_of_the_drawing(trained, tmp_path):
    made = trained('classification')
    inferencer = ImageClassificationInferencer(made.config, made.checkpoint, device='cpu')
    inferencer(np.zeros((40, 60, 3), dtype=np.uint8), show_dir=str(tmp_path), rescale_factor=2)
    with Image.open(tmp_path / '00000000.png') as drawn:
        assert drawn.size == (120, 80)


def run_example(name, names, folder, monkeypatch):
    """What the example of the docs defines, with files in the place of its names."""
    text = read_example('docs/inference.md', name)
    for placeholder, file in names.items():
        text = text.replace(f"'{placeholder}'", repr(str(file)))
    monkeypatch.chdir(folder)
    scope = {}
    exec(text, scope)
    return scope


def test_examples_of_the_docs(trained, tmp_path, monkeypatch, capsys):
    classifier, detector, segmentor = map(trained, CONFIGS)
    names = dict(CONFIG=classifier.config, CHECKPOINT=classifier.checkpoint, PICTURES=classifier.folder)
    run_example('classification', names, tmp_path, monkeypatch)
    assert capsys.readouterr().out.count('class ') == 6
    names = dict(DETECTOR_CONFIG=detector.config, DETECTOR=detector.checkpoint, PICTURES=detector.folder)
    names |= dict(SEGMENTOR_CONFIG=segmentor.config, SEGMENTOR=segmentor.checkpoint)
    scope = run_example('dense', names, tmp_path, monkeypatch)
    assert len(scope['boxes']) == len(scope['label_maps']) == 6
    for folder in ('drawn', 'detected/vis', 'segmented/vis'):
        assert len(list((tmp_path / folder).iterdir())) == 6


def test_example_of_onnx(trained, tmp_path, monkeypatch):
    pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')
    made = trained('classification')
    inferencer = ImageClassificationInferencer(made.config, made.checkpoint, device='cpu')
    export_onnx(inferencer.model, tmp_path / 'model.onnx', (64, 64))
    names = dict(CONFIG=made.config, CHECKPOINT=made.checkpoint, PICTURE=made.folder / '0.jpg')
    logits = run_example('onnx', names, tmp_path, monkeypatch)['logits']
    (expected,) = made.infer(str(made.folder / '0.jpg'))
    scores = torch.as_tensor(logits).softmax(dim=1)
    assert scores.shape == (2, 10)
    torch.testing.assert_close(scores, expected.pred_score.expand(2, -1), rtol=0, atol=1e-4)
