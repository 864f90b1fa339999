"""Tools of mmpretrain and those that stand in for them, on a real tiny run of a classifier.

Those of mmdet and mmseg: ``test_dense_tools.py``.
"""

import copy
import runpy
from pathlib import Path

import cv2
import mmpretrain
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import load
from mmengine.registry import DATASETS, MODELS
from processes import run
from unsafe_pickle import ShellOnLoad

from smmix_mm.checkpoint import check_fit, read_weights
from smmix_mm.engine import build_model, complete_dataloaders

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(mmpretrain.__file__).parent / '.mim/tools'
DEMO = 'configs/smmix/pvt-mini_smmix_1xb32-8e_digit-scenes.py'
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


@pytest.fixture(scope='module')
def trained(tmp_path_factory) -> Path:
    """The run of the demo's config, whose images are beside it."""
    folder = tmp_path_factory.mktemp('library_tools')
    run('train.py', DEMO, '--work-dir', folder / 'run', '--no-pin-memory', '--no-persistent-workers', *small(folder))
    return folder


def small(folder: Path, *more: str) -> list[str]:
    settings = {'data_root': folder / 'data', 'sizes.train': 20, 'sizes.val': 10}
    return [
        '--cfg-options',
        *(f'{loader}.dataset.{key}={value}' for loader in LOADERS for key, value in settings.items()),
        *(f'{loader}.{key}' for loader in LOADERS for key in ('num_workers=0', 'persistent_workers=False')),
        'train_dataloader.batch_size=10',
        'train_cfg.max_epochs=1',
        'default_hooks.logger.interval=1',
        *more,
    ]


def test_configs_are_printed():
    done = run(TOOLS / 'misc/print_config.py', DEMO, '--cfg-options', 'train_cfg.max_epochs=3')
    printed = Config.fromstring(done.stdout, '.py')
    expected = Config.fromfile(ROOT / DEMO)
    expected.train_cfg.max_epochs = 3
    assert printed.to_dict() == expected.to_dict()


def test_logs_are_analysed(trained):
    (log,) = (trained / 'run').glob('*/vis_data/scalars.json')
    tool = TOOLS / 'analysis_tools/analyze_logs.py'
    assert 'average iter time' in run(tool, 'cal_train_time', log, '--include-outliers').stdout
    run(tool, 'plot_curve', log, '--keys', 'loss', 'accuracy/top1', '--out', trained / 'curve.png')
    assert cv2.imread(str(trained / 'curve.png')).std() > 5


def test_predictions_and_the_confusion_matrix(trained, tmp_path):
    """The matrix of the predictions that tools/test.py writes, and of the checkpoint."""
    checkpoint = trained / 'run/epoch_1.pth'
    run(
        'test.py', DEMO, checkpoint, '--work-dir', tmp_path / 'test', '--out', tmp_path / 'scores.pkl', *small(trained)
    )  # fmt: skip
    predictions = load(tmp_path / 'scores.pkl')
    expected = np.zeros((10, 10), dtype=int)
    for prediction in predictions:
        assert prediction['pred_label'] == prediction['pred_score'].argmax()
        expected[prediction['gt_label'], prediction['pred_label']] += 1
    for source in (checkpoint, tmp_path / 'scores.pkl'):
        out = tmp_path / f'{source.stem}_matrix.pkl'
        run(TOOLS / 'analysis_tools/confusion_matrix.py', DEMO, source, '--out', out, *small(trained))
        assert load(out).tolist() == expected.tolist()
    assert expected.sum() == 10


def test_augmented_predictions_are_the_mean_of_both_scales(trained, tmp_path):
    """Through the tool, whose check of the checkpoint has to see the model in its wrapper."""
    arguments = [DEMO, trained / 'run/epoch_1.pth', '--work-dir', tmp_path / 'test', '--tta']
    run('test.py', *arguments, '--out', tmp_path / 'scores.pkl', *small(trained))
    model = build_model(Config.fromfile(ROOT / DEMO)).eval()
    model.load_state_dict(read_weights(trained / 'run/epoch_1.pth'))
    for prediction in load(tmp_path / 'scores.pkl'):
        image = cv2.imread(prediction['img_path'])
        enlarged = cv2.resize(image, (72, 72), interpolation=cv2.INTER_LINEAR)[4:68, 4:68]
        views = torch.stack([torch.from_numpy(view).permute(2, 0, 1) for view in (image, enlarged)])
        with torch.no_grad():
            scores = model(model.data_preprocessor(dict(inputs=views))['inputs']).softmax(dim=1)
        assert prediction['pred_score'].allclose(scores.mean(dim=0), atol=1e-5)
        assert not prediction['pred_score'].allclose(scores[0], atol=1e-5)


def test_classifiers_without_tta_settings_see_the_mirror_image_too(tmp_path, vit_arch):
    """As in mmpretrain's own tool."""
    tool = runpy.run_path(str(ROOT / 'tools/test.py'))
    rng = np.random.default_rng(0)
    (tmp_path / 'one').mkdir()
    images = [rng.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in range(3)]
    for index, image in enumerate(images):
        cv2.imwrite(str(tmp_path / f'one/{index}.png'), image)
    backbone = dict(type='mmpretrain.VisionTransformer', arch=vit_arch, img_size=32, patch_size=8)
    head = dict(type='mmpretrain.VisionTransformerClsHead', num_classes=5, in_channels=32)
    pipeline = [dict(type='smmix_mm.LoadImage'), dict(type='mmpretrain.PackInputs')]
    dataset = dict(type='mmpretrain.CustomDataset', data_root=str(tmp_path), pipeline=pipeline)
    cfg = Config(
        dict(
            default_scope='mmpretrain',
            model=dict(type='smmix_mm.MixingClassifier', backbone=backbone, head=head),
            test_dataloader=dict(dataset=dataset),
        )
    )
    tool['apply_tta'](cfg)
    model = MODELS.build(cfg.model).eval()
    plain = model.module
    weights = plain.state_dict()
    check_fit(model, weights, 'the model')
    with pytest.raises(ValueError, match=r'does not fit MixingClassifier[\s\S]*cls_token'):
        check_fit(model, {name: value for name, value in weights.items() if name != 'backbone.cls_token'}, 'the model')
    samples = list(DATASETS.build(cfg.test_dataloader.dataset))
    batch = {
        key: [list(views) for views in zip(*(sample[key] for sample in samples), strict=True)] for key in samples[0]
    }
    with torch.no_grad():
        merged = model.test_step(copy.deepcopy(batch))
        for image, sample in zip(images, merged, strict=True):
            views = torch.stack([torch.from_numpy(view.copy()).permute(2, 0, 1) for view in (image, image[:, ::-1])])
            scores = plain(plain.data_preprocessor(dict(inputs=views))['inputs']).softmax(dim=1)
            assert sample.pred_score.allclose(scores.mean(dim=0), atol=1e-6)
            assert not sample.pred_score.allclose(scores[0], atol=1e-6)


def test_tta_needs_settings_in_detection():
    tool = runpy.run_path(str(ROOT / 'tools/test.py'))
    cfg = Config(dict(default_scope='mmdet', test_dataloader=dict(dataset=dict()), tta_model=dict()))
    with pytest.raises(ValueError, match='--tta needs tta_pipeline'):
        tool['apply_tta'](cfg)


def test_switches_of_dataloaders_override_the_config():
    cfg = Config(dict(train_dataloader=dict(num_workers=2, pin_memory=True, persistent_workers=True)))
    complete_dataloaders(cfg)
    assert cfg.train_dataloader == dict(num_workers=2, pin_memory=True, persistent_workers=True)
    complete_dataloaders(cfg, pin_memory=False, persistent_workers=False)
    assert cfg.train_dataloader == dict(num_workers=2, pin_memory=False, persistent_workers=False)


def test_images_are_browsed(trained, tmp_path):
    arguments = [DEMO, '--output-dir', tmp_path, '--not-show', '--show-number', 1]
    run('visualization/browse_dataset.py', *arguments, *small(trained))
    (picture,) = tmp_path.iterdir()
    assert picture.name in {path.name for path in (trained / 'data/train').rglob('*.png')}
    assert cv2.imread(str(picture)).std() > 5


def test_unreadable_images_are_found(trained, tmp_path):
    victim = sorted((trained / 'data/val').rglob('*.png'))[3]
    whole = victim.read_bytes()
    victim.write_bytes(whole[:60])
    try:
        arguments = [DEMO, '--phase', 'val', '--out-path', tmp_path / 'broken.txt']
        run('misc/verify_dataset.py', *arguments, *small(trained))
        assert (tmp_path / 'broken.txt').read_text().split() == [str(victim)]
    finally:
        victim.write_bytes(whole)


def test_checkpoints_are_published_without_executing_them(trained, tmp_path):
    checkpoint = trained / 'run/epoch_1.pth'
    content = torch.load(checkpoint, weights_only=False)
    content['meta']['evil'] = ShellOnLoad(tmp_path / 'touched')
    torch.save(content, tmp_path / 'hostile.pth')
    run('model_converters/publish_model.py', tmp_path / 'hostile.pth', tmp_path / 'model.pth')
    assert not (tmp_path / 'touched').exists()
    (published,) = tmp_path.glob('model_*-????????.pth')
    # Nothing is left that needs more than weights_only.
    content = torch.load(published, weights_only=True)
    assert content.keys() == {'meta', 'state_dict'}
    assert 'evil' not in content['meta']
    weights = read_weights(checkpoint)
    assert content['state_dict'].keys() == weights.keys()
    assert all(value.equal(weights[name]) for name, value in content['state_dict'].items())
    assert published.stat().st_size < checkpoint.stat().st_size / 2
