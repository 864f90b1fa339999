"""Detection and segmentation through the command-line tools: real processes on tiny folders in the real layouts."""

import copy
import json
import runpy
import shutil
from pathlib import Path

import cv2
import mmdet
import mmpretrain
import mmseg
import numpy as np
import pytest
from dense_folders import write_ade20k, write_coco
from mmengine.config import Config
from mmengine.fileio import load
from mmengine.registry import DATASETS, init_default_scope
from processes import run, scalars

from smmix_mm.checkpoint import read_weights, write_weights
from smmix_mm.engine import build_model
from smmix_mm.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
MASK_RCNN = 'configs/mask_rcnn/mask-rcnn_pvt-tiny_fpn_1x_coco.py'
SEM_FPN = 'configs/sem_fpn/fpn_pvt-tiny_8xb2-80k_ade20k-512x512.py'
CLASSIFIER = 'configs/smmix/pvt-mini_smmix_1xb32-8e_digit-scenes.py'
ARCH = dict(
    embed_dims=[8, 16, 24, 32],
    num_heads=[1, 2, 3, 4],
    mlp_ratios=[2, 2, 2, 2],
    depths=[1, 1, 1, 1],
    sr_ratios=[4, 2, 2, 1],
    strides=[4, 2, 2, 2],
)
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def options(settings: dict) -> list[str]:
    """As `--cfg-options` takes them: `key=value`, without blanks."""
    return ['--cfg-options', *(f'{key}={value}'.replace(' ', '') for key, value in settings.items())]


def small_backbone() -> dict:
    return {
        'model.backbone.arch._delete_': True,
        **{f'model.backbone.arch.{key}': value for key, value in ARCH.items()},
        'model.neck.in_channels': ARCH['embed_dims'],
        'model.neck.out_channels': 16,
        'default_hooks.logger.interval': 1,
        **{f'{loader}.num_workers': 0 for loader in LOADERS},
    }


@pytest.fixture(scope='module')
def detector(tmp_path_factory) -> dict:
    """Settings that make the COCO config a matter of seconds, on a folder of its own."""
    root = write_coco(tmp_path_factory.mktemp('coco') / 'data')
    return {
        **small_backbone(),
        # From random weights.
        'model.backbone.init_cfg': None,
        'model.rpn_head.in_channels': 16,
        'model.rpn_head.feat_channels': 16,
        **{f'model.roi_head.{kind}_roi_extractor.out_channels': 16 for kind in ('bbox', 'mask')},
        'model.roi_head.bbox_head.in_channels': 16,
        'model.roi_head.bbox_head.fc_out_channels': 32,
        'model.roi_head.mask_head.in_channels': 16,
        'model.roi_head.mask_head.conv_out_channels': 16,
        'model.train_cfg.rcnn.sampler.num': 32,
        # Without any detection there is no score.
        'model.test_cfg.rcnn.score_thr': 0.0,
        'model.test_cfg.rcnn.max_per_img': 5,
        'train_dataloader.dataset.pipeline.2.scale': (160, 96),
        **{f'{loader}.dataset.data_root': root for loader in LOADERS},
        **{f'{loader}.dataset.pipeline.1.scale': (160, 96) for loader in LOADERS[1:]},
        **{f'{kind}_evaluator.ann_file': root / 'annotations/instances_val2017.json' for kind in ('val', 'test')},
        'train_cfg.max_epochs': 1,
    }


@pytest.fixture(scope='module')
def segmentor(tmp_path_factory) -> dict:
    """Settings that make the ADE20K config a matter of seconds, on a folder and pretrained weights of its own."""
    folder = tmp_path_factory.mktemp('ade')
    root = write_ade20k(folder / 'data')
    pretrain(folder / 'epoch_1.pth')
    return {
        **small_backbone(),
        'model.backbone.init_cfg.checkpoint': folder / 'epoch_1.pth',
        'model.decode_head.in_channels': [16] * 4,
        'model.decode_head.channels': 16,
        'model.data_preprocessor.size': (64, 64),
        'train_dataloader.dataset.pipeline.2.scale': (160, 64),
        'train_dataloader.dataset.pipeline.3.crop_size': (64, 64),
        **{f'{loader}.dataset.data_root': root for loader in LOADERS},
        **{f'{loader}.dataset.pipeline.1.scale': (160, 64) for loader in LOADERS[1:]},
        'train_cfg.max_iters': 4,
        'train_cfg.val_interval': 2,
        'default_hooks.checkpoint.interval': 2,
    }


def pretrain(path: Path) -> None:
    """Writes the checkpoint of a classifier, with random weights."""
    init_default_scope('mmpretrain')
    classifier = MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(type='smmix_mm.PVT', arch=ARCH, img_size=64),
            head=dict(type='mmpretrain.LinearClsHead', num_classes=10, in_channels=ARCH['embed_dims'][-1]),
        )
    )
    write_weights(path, classifier.state_dict())


@pytest.fixture(scope='module')
def trained_detector(detector, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('detector')
    run('train.py', MASK_RCNN, '--work-dir', folder, *options(detector))
    return folder


@pytest.fixture(scope='module')
def trained_segmentor(segmentor, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('segmentor')
    run('train.py', SEM_FPN, '--work-dir', folder, *options(segmentor))
    return folder


def log(work_dir: Path) -> str:
    return next(work_dir.glob('*/*.log')).read_text()


def check_pictures(folder: Path, images: Path) -> None:
    """One for each image, under its name, truth and prediction side by side, both drawn over the image."""
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in images.iterdir())
    for path in folder.iterdir():
        image, picture = (cv2.imread(str(file)).astype(int) for file in (images / path.name, path))
        # Small pictures are enlarged, so that there is room for text.
        factor = picture.shape[0] // image.shape[0]
        image = image.repeat(factor, axis=0).repeat(factor, axis=1)
        assert picture.shape == (image.shape[0], 2 * image.shape[1], 3)
        assert 384 <= min(image.shape[:2]) < 384 + 64
        truth, prediction = np.split(picture, 2, axis=1)
        for half in (truth, prediction):
            assert half.std() > 5
            assert np.abs(half - image).mean() > 1
        assert np.abs(truth - prediction).mean() > 1


def test_detector_trains_and_is_scored(trained_detector):
    rows = scalars(trained_detector)
    losses = [row for row in rows if 'loss' in row]
    assert len(losses) == 2
    assert all(
        np.isfinite(row[name])
        for row in losses
        for name in ('loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox', 'loss_mask')
    )
    assert [{'coco/bbox_mAP', 'coco/segm_mAP'} <= row.keys() for row in rows].count(True) == 1
    assert (trained_detector / 'epoch_1.pth').is_file()


def test_detector_is_tested_with_pictures(trained_detector, detector, tmp_path):
    settings = {**detector, 'default_hooks.visualization.score_thr': 0.0}
    run(
        'test.py', MASK_RCNN, trained_detector / 'epoch_1.pth', '--work-dir', tmp_path / 'test',
        '--out', tmp_path / 'scores.json', '--show-dir', tmp_path / 'pictures', *options(settings),
    )  # fmt: skip
    scores = json.loads((tmp_path / 'scores.json').read_text())
    validated = next(row for row in scalars(trained_detector) if 'coco/bbox_mAP' in row)
    for name in ('coco/bbox_mAP', 'coco/segm_mAP'):
        assert scores[name] == pytest.approx(validated[name])
    check_pictures(tmp_path / 'pictures', detector['test_dataloader.dataset.data_root'] / 'val2017')


def test_detector_is_tested_with_augmentation(trained_detector, detector, tmp_path):
    """Boxes only, as mmdet merges them; and mmdet's confusion matrix of the predictions."""
    settings = {**detector, 'tta_pipeline.1.scale': (160, 96), 'test_dataloader.persistent_workers': False}
    arguments = [MASK_RCNN, trained_detector / 'epoch_1.pth', '--work-dir', tmp_path / 'test']
    out, shown = tmp_path / 'boxes.pkl', tmp_path / 'pictures'
    pictures = ['--show-dir', shown, '--interval', 2]
    run('test.py', *arguments, '--tta', '--out', out, *pictures, *options(settings))
    predictions = load(out)
    images = detector['test_dataloader.dataset.data_root'] / 'val2017'
    names = sorted(path.name for path in images.iterdir())
    assert [Path(prediction['img_path']).name for prediction in predictions] == names
    for prediction in predictions:
        # The limit of tta_model, 100, is above what two views of five boxes give.
        assert 5 <= len(prediction['pred_instances']['scores']) <= 10
        assert prediction['pred_instances'].keys() == {'bboxes', 'scores', 'labels'}
    assert [path.name for path in shown.iterdir()] == names[:1]
    # Drawing 81 classes takes long.
    tool = runpy.run_path(str(Path(mmdet.__file__).parent / '.mim/tools/analysis_tools/confusion_matrix.py'))
    cfg = Config.fromfile(ROOT / MASK_RCNN)
    cfg.merge_from_dict(settings)
    init_default_scope('mmdet')
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    objects = [instance for index in range(len(dataset)) for instance in dataset.get_data_info(index)['instances']]
    labels = [instance['bbox_label'] for instance in objects]
    # No score is above 1, so all objects are missed; without a threshold each prediction is counted.
    matrix = tool['calculate_confusion_matrix'](dataset, predictions, score_thr=1.1)
    assert matrix[:, -1].tolist() == np.bincount(labels, minlength=81).tolist()
    assert matrix[:, :-1].sum() == 0
    matrix = tool['calculate_confusion_matrix'](dataset, predictions)
    counts = np.bincount(np.concatenate([prediction['pred_instances']['labels'] for prediction in predictions]))
    assert (matrix.sum(axis=0)[: len(counts)] >= counts).all()


@pytest.mark.slow
def test_images_are_browsed(detector, segmentor, tmp_path):
    """By mmdet's and mmseg's own tools, with what they are labelled with."""
    for library, config, settings, folder in (
        (mmdet, MASK_RCNN, detector, 'train2017'),
        (mmseg, SEM_FPN, segmentor, 'images/training'),
    ):
        out = tmp_path / library.__name__
        tool = Path(library.__file__).parent / '.mim/tools/analysis_tools/browse_dataset.py'
        run(tool, config, '--output-dir', out, '--not-show', *options(settings))
        images = settings['train_dataloader.dataset.data_root'] / folder
        # mmdet leaves out the one without objects.
        drawn = {path.name for path in out.iterdir()}
        assert len(drawn) == (3 if library is mmdet else 4)
        assert drawn <= {path.name for path in images.iterdir()}


@pytest.mark.slow
def test_unreadable_images_of_detection_and_segmentation_are_found(detector, segmentor, tmp_path):
    for name, config, settings, image in (
        ('coco', MASK_RCNN, detector, 'val2017/000000000001.jpg'),
        ('ade', SEM_FPN, segmentor, 'images/validation/ADE_val_00000001.jpg'),
    ):
        root = shutil.copytree(settings['val_dataloader.dataset.data_root'], tmp_path / name)
        (root / image).write_bytes((root / image).read_bytes()[:300])
        changed = {**settings, 'val_dataloader.dataset.data_root': root}
        out = tmp_path / f'{name}.txt'
        run('misc/verify_dataset.py', config, '--phase', 'val', '--out-path', out, *options(changed))
        assert out.read_text().split() == [str(root / image)]


@pytest.mark.parametrize(
    ('config', 'shapes'),
    [
        ('mask_rcnn/mask-rcnn_pvt-mini-scratch_fpn_1xb8-3e_digit-scenes.py', [(3, 128, 160), (3, 160, 200)]),
        ('sem_fpn/fpn_pvt-mini-scratch_1xb8-300_digit-scenes-128x128.py', [(3, 128, 160), (3, 160, 224)]),
    ],
)
def test_digits_are_enlarged_but_not_flipped_in_augmented_tests(tmp_path, config, shapes):
    """The heads of both libraries are told of no flip; pictures are 128 x 160."""
    cfg = Config.fromfile(ROOT / 'configs' / config)
    init_default_scope(cfg.default_scope)
    settings = dict(data_root=str(tmp_path / 'data'), sizes=dict(train=1, val=1), pipeline=cfg.tta_pipeline)
    views = DATASETS.build({**cfg.test_dataloader.dataset, **settings})[0]
    assert [tuple(inputs.shape) for inputs in views['inputs']] == shapes
    assert not any(sample.metainfo.get('flip') for sample in views['data_samples'])
    if cfg.default_scope == 'mmdet':
        assert all('flip_direction' in sample.metainfo for sample in views['data_samples'])
    settings.update(pipeline=cfg.test_pipeline)
    (plain,) = DATASETS.build({**cfg.test_dataloader.dataset, **settings})
    assert plain['inputs'].equal(views['inputs'][0])


def test_confusion_matrix_of_label_maps(tmp_path):
    """By mmseg's own function, of predictions in the form of ``--out FOLDER``: from 1 on."""
    init_default_scope('mmseg')
    path = Path(mmseg.__file__).parent / '.mim/tools/analysis_tools/confusion_matrix.py'
    if 'res_segm = res_segm - 1' not in path.read_text():
        pytest.skip('this version of mmseg does not shift the predicted labels back')
    tool = runpy.run_path(str(path))
    pipeline = [
        dict(type='smmix_mm.LoadImage'),
        dict(type='smmix_mm.LoadLabelMap', num_classes=11, reduce_zero_label=True),
        dict(type='mmseg.PackSegInputs'),
    ]
    sizes = dict(train=1, val=2)
    dataset = DATASETS.build(
        dict(
            type='smmix_mm.DigitScenesSegmentation',
            data_root=str(tmp_path / 'data'),
            split='val',
            sizes=sizes,
            pipeline=pipeline,
        )
    )
    truth = [sample['data_samples'].gt_sem_seg.data.numpy()[0].astype(int) for sample in dataset]
    # All is predicted as the first class.
    matrix = tool['calculate_confusion_matrix'](dataset, [np.ones_like(label_map) for label_map in truth])
    counts = sum(np.bincount(label_map[label_map < 255], minlength=11) for label_map in truth)
    assert matrix[:, 0].tolist() == counts.tolist()
    assert matrix[:, 1:].sum() == 0


def test_segmentor_starts_from_a_classifier_and_is_scored(trained_segmentor, segmentor):
    rows = scalars(trained_segmentor)
    assert [row['step'] for row in rows if 'loss' in row] == [1, 2, 3, 4]
    assert all(np.isfinite(row['decode.loss_ce']) for row in rows if 'loss' in row)
    assert [{'mIoU', 'mAcc'} <= row.keys() for row in rows].count(True) == 2
    checkpoint = segmentor['model.backbone.init_cfg.checkpoint']
    found = len(read_weights(checkpoint))
    # All but the class token, the last norm's weight and bias, and the classifier's.
    assert f'{checkpoint}: loaded {found - 5} of {found} tensors' in log(trained_segmentor)


def test_segmentor_is_tested_with_pictures(trained_segmentor, segmentor, tmp_path):
    run(
        'test.py', SEM_FPN, trained_segmentor / 'iter_4.pth', '--work-dir', tmp_path / 'test',
        '--out', tmp_path / 'scores.json', '--show-dir', tmp_path / 'pictures', *options(segmentor),
    )  # fmt: skip
    scores = json.loads((tmp_path / 'scores.json').read_text())
    validated = [row for row in scalars(trained_segmentor) if 'mIoU' in row][-1]
    for name in ('mIoU', 'mAcc', 'aAcc'):
        assert scores[name] == pytest.approx(validated[name], abs=0.01)
    check_pictures(tmp_path / 'pictures', segmentor['test_dataloader.dataset.data_root'] / 'images/validation')


def test_segmentor_is_tested_with_augmentation(trained_segmentor, segmentor, tmp_path):
    """The picture and its mirror image; the label maps are those of the mean of both."""
    settings = {**segmentor, 'tta_pipeline.1.scale': (160, 64)}
    arguments = [SEM_FPN, trained_segmentor / 'iter_4.pth', '--work-dir', tmp_path / 'test']
    run('test.py', *arguments, '--tta', '--out', tmp_path / 'maps', *options(settings))
    cfg = Config.fromfile(ROOT / SEM_FPN)
    cfg.merge_from_dict({**settings, 'model.backbone.init_cfg': None})
    model = build_model(cfg).eval()
    model.load_state_dict(read_weights(trained_segmentor / 'iter_4.pth'))
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    for sample in dataset:
        views = []
        for inputs in (sample['inputs'], sample['inputs'].flip(-1)):
            batch = dict(inputs=[inputs], data_samples=[copy.deepcopy(sample['data_samples'])])
            views.append(model.test_step(batch)[0].seg_logits.data.softmax(dim=0))
        expected = (views[0] + views[1].flip(-1)).argmax(dim=0)
        path = tmp_path / 'maps' / f'{Path(sample["data_samples"].img_path).stem}.png'
        predicted = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) - 1
        # Resizing is not exactly symmetrical.
        assert (predicted == expected.numpy()).mean() > 0.98
        assert (predicted != views[0].argmax(dim=0).numpy()).any()


def test_logs_of_dense_runs_are_analysed(trained_detector, trained_segmentor, tmp_path):
    """By mmpretrain's tool, which needs less than mmdet's and mmseg's."""
    tool = Path(mmpretrain.__file__).parent / '.mim/tools/analysis_tools/analyze_logs.py'
    for folder, score in ((trained_detector, 'coco/bbox_mAP'), (trained_segmentor, 'mIoU')):
        (values,) = folder.glob('*/vis_data/scalars.json')
        out = tmp_path / f'{folder.name}.png'
        run(tool, 'plot_curve', values, '--keys', 'loss', score, '--out', out)
        assert cv2.imread(str(out)).std() > 5


def test_images_without_label_maps_are_segmented(trained_segmentor, segmentor, tmp_path):
    """By the config's own test pipeline, into a folder of label maps, as ADE20K's server takes them: from 1 on."""
    settings = {
        **segmentor,
        'test_dataloader.dataset.data_prefix._delete_': True,
        'test_dataloader.dataset.data_prefix.img_path': 'images/validation',
    }
    arguments = [SEM_FPN, trained_segmentor / 'iter_4.pth', '--work-dir', tmp_path / 'test']
    run('test.py', *arguments, '--out', tmp_path / 'maps', *options(settings))
    images = segmentor['test_dataloader.dataset.data_root'] / 'images/validation'
    assert sorted(path.stem for path in (tmp_path / 'maps').iterdir()) == sorted(path.stem for path in images.iterdir())
    for path in (tmp_path / 'maps').iterdir():
        predicted = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert predicted.shape == cv2.imread(str(images / f'{path.stem}.jpg')).shape[:2]
    done = run('test.py', *arguments, *options(settings), check=False)
    assert done.returncode != 0
    assert 'has no labels, so there are no metrics. To write the predictions, set --out' in done.stderr


def test_segmentor_resumes(trained_segmentor, segmentor, tmp_path):
    shutil.copytree(trained_segmentor, tmp_path / 'run')
    (tmp_path / 'run/last_checkpoint').write_text(str(tmp_path / 'run/iter_4.pth'))
    settings = {**segmentor, 'train_cfg.max_iters': 6}
    run('train.py', SEM_FPN, '--work-dir', tmp_path / 'run', '--resume', *options(settings))
    rows = [row for row in scalars(tmp_path / 'run') if 'loss' in row]
    assert [row['step'] for row in rows] == [1, 2, 3, 4, 5, 6]
    # The schedule goes on too: it is that of 80 000 iterations.
    assert [row['lr'] for row in rows] == sorted({row['lr'] for row in rows}, reverse=True)
    assert (tmp_path / 'run/iter_6.pth').is_file()


def test_classifier_is_tested_with_pictures(tmp_path):
    cfg = Config.fromfile(ROOT / CLASSIFIER)
    model = MODELS.build({**cfg.model, 'data_preprocessor': dict(cfg.data_preprocessor)})
    write_weights(tmp_path / 'epoch_1.pth', model.state_dict())
    settings = {
        'test_dataloader.dataset.data_root': tmp_path / 'data',
        'test_dataloader.dataset.sizes.train': 1,
        'test_dataloader.dataset.sizes.val': 3,
        'test_dataloader.num_workers': 0,
    }
    run(
        'test.py', CLASSIFIER, tmp_path / 'epoch_1.pth', '--work-dir', tmp_path / 'test',
        '--show-dir', tmp_path / 'pictures', *options(settings),
    )  # fmt: skip
    images = {path.name: path for path in (tmp_path / 'data/val').rglob('*.png')}
    assert images.keys() == {path.name for path in (tmp_path / 'pictures').iterdir()}
    for name, path in images.items():
        image, picture = cv2.imread(str(path)), cv2.imread(str(tmp_path / 'pictures' / name)).astype(int)
        # From 64 pixels to the 384 that text needs.
        enlarged = image.repeat(6, axis=0).repeat(6, axis=1).astype(int)
        # The text stands in the upper left; below is the image in its own colours.
        assert np.abs(picture - enlarged)[192:].mean() < 1
        assert np.abs(picture - enlarged)[:192].mean() > 3


def test_missing_pretrained_checkpoint_is_named_before_anything_is_built(tmp_path):
    done = run('train.py', SEM_FPN, '--work-dir', tmp_path / 'run', check=False)
    assert done.returncode != 0
    assert (
        'model.backbone.init_cfg.checkpoint is work_dirs/pvt-tiny_smmix_8xb128-300e_in1k/epoch_300.pth, '
        'but there is no such file. Pretrain first (python tools/train.py configs/smmix/pvt-tiny_smmix_8xb128-300e_in1k'
        '.py), or set another: --cfg-options model.backbone.init_cfg.checkpoint=PATH'
    ) in done.stderr
    assert not (tmp_path / 'run').exists()


def test_missing_data_is_named_before_anything_is_built(segmentor, tmp_path):
    checkpoint = {'model.backbone.init_cfg.checkpoint': segmentor['model.backbone.init_cfg.checkpoint']}
    for config, settings, missing, tree in (
        (
            MASK_RCNN,
            {'train_dataloader.dataset.data_root': tmp_path / 'coco', 'model.backbone.init_cfg': None},
            'coco/annotations/instances_train2017.json',
            f'{tmp_path}/coco/\n  annotations/instances_{{train,val}}2017.json\n  train2017/<image>\n',
        ),
        (
            SEM_FPN,
            {'train_dataloader.dataset.data_root': tmp_path / 'ade', **checkpoint},
            'ade/images/training',
            f'{tmp_path}/ade/\n  images/{{training,validation}}/<name>.jpg\n',
        ),
    ):
        done = run('train.py', config, '--work-dir', tmp_path / 'run', *options(settings), check=False)
        assert done.returncode != 0
        assert f'{tmp_path}/{missing}, which train_dataloader.dataset reads, does not exist' in done.stderr
        assert tree in done.stderr
        assert not (tmp_path / 'run').exists()


def test_corrupt_files_stop_training_with_their_path(detector, segmentor, tmp_path):
    """In worker processes, as in real runs; and no checkpoint is left."""
    coco = shutil.copytree(detector['train_dataloader.dataset.data_root'], tmp_path / 'coco')
    ade = shutil.copytree(segmentor['train_dataloader.dataset.data_root'], tmp_path / 'ade')
    picture = coco / 'train2017/000000000003.jpg'
    picture.write_bytes(picture.read_bytes()[:700])
    label_map = ade / 'annotations/training/ADE_train_00000002.png'
    cv2.imwrite(str(label_map), np.full((75, 61), 151, dtype=np.uint8))
    for config, settings, root, message in (
        (MASK_RCNN, detector, coco, f'image {picture} cannot be read'),
        (SEM_FPN, segmentor, ade, f'label map {label_map} holds the values [151]'),
    ):
        changed = {
            **settings,
            'train_dataloader.dataset.data_root': root,
            'train_dataloader.num_workers': 1,
            'train_cfg.max_iters' if config == SEM_FPN else 'train_cfg.max_epochs': 50,
            'train_cfg.val_interval': 50,
            'default_hooks.checkpoint.interval': 50,
        }
        done = run('train.py', config, '--work-dir', tmp_path / 'run', *options(changed), check=False)
        assert done.returncode != 0
        assert message in done.stderr
        assert not list((tmp_path / 'run').glob('*.pth'))
