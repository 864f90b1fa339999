"""The command-line tools as real processes on real files."""

import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import mmpretrain
import numpy as np
import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.fileio import load
from processes import run, scalars, start
from unsafe_pickle import ShellOnLoad

ROOT = Path(__file__).resolve().parents[2]
DEMO = 'configs/smmix/pvt-mini_smmix_1xb32-8e_digit-scenes.py'
DEIT = 'configs/smmix/deit-tiny_smmix_8xb128-300e_in1k.py'


def small_demo(folder: Path) -> list[str]:
    """Options that make the demo config a matter of seconds."""
    return [
        '--cfg-options',
        *(
            f'{loader}.dataset.{key}={value}'
            for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader')
            for key, value in (('data_root', folder / 'data'), ('sizes.train', 96), ('sizes.val', 20))
        ),
        'train_dataloader.num_workers=0',
        'val_dataloader.num_workers=0',
        'test_dataloader.num_workers=0',
        'default_hooks.logger.interval=1',
        'train_cfg.max_epochs=2',
    ]


@pytest.fixture(scope='module')
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('trained')
    run('train.py', DEMO, '--work-dir', folder / 'run', *small_demo(folder))
    return folder


def test_training_reports_its_losses_and_scores(trained):
    rows = scalars(trained / 'run')
    losses = [row for row in rows if 'loss' in row]
    assert len(losses) == 6
    assert any({'loss_cls', 'loss_fine', 'loss_con'} <= row.keys() for row in losses)
    assert all(np.isfinite(row['loss']) for row in losses)
    assert len([row for row in rows if 'accuracy/top1' in row]) == 2
    assert (trained / 'run' / 'epoch_2.pth').is_file()


TEST_AND_COUNT = """
import runpy, sys
from opened_files import counted_opens
from smmix_mm.checkpoint import read_checkpoint
checkpoint, sys.argv = sys.argv[1], sys.argv[2:]
with counted_opens() as once:
    read_checkpoint(checkpoint)
with counted_opens() as opened:
    runpy.run_path('tools/test.py', run_name='counted')['main']()
print('opens:', opened[checkpoint], 'of one reading:', once[checkpoint])
"""


def test_testing_gives_the_score_of_the_last_validation(trained):
    out = trained / 'metrics.json'
    options = small_demo(trained)
    checkpoint = trained / 'run/epoch_2.pth'
    argv = ['test.py', DEMO, checkpoint, '--work-dir', trained / 'test', '--out', out, *options]
    script = trained / 'test_and_count.py'
    script.write_text(TEST_AND_COUNT)
    done = run(script, checkpoint, *argv)
    # The model is checked against what is then loaded, which is not read again.
    opens, of_one_reading = re.search(r'opens: (\d+) of one reading: (\d+)', done.stdout).groups()
    assert opens == of_one_reading
    validated = [row['accuracy/top1'] for row in scalars(trained / 'run') if 'accuracy/top1' in row][-1]
    assert json.loads(out.read_text())['accuracy/top1'] == pytest.approx(validated)


def test_resuming_goes_on_where_the_run_stopped(trained, tmp_path):
    shutil.copytree(trained / 'run', tmp_path / 'run')
    (tmp_path / 'run/last_checkpoint').write_text(str(tmp_path / 'run/epoch_2.pth'))
    options = [*small_demo(trained)[:-1], 'train_cfg.max_epochs=3']
    done = run('train.py', DEMO, '--work-dir', tmp_path / 'run', '--resume', *options)
    assert 'resumed epoch: 2, iter: 6' in done.stdout + done.stderr
    steps = [row['step'] for row in scalars(tmp_path / 'run') if 'loss' in row]
    assert steps == list(range(1, 10))


def test_checkpoint_of_another_architecture_is_refused(trained):
    options = small_demo(trained)
    done = run(
        'test.py', DEMO, trained / 'run/epoch_2.pth', '--work-dir', trained / 'test', *options,
        'model.backbone.arch.depths=[2,1,1,2]', check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert 'epoch_2.pth does not fit MixingClassifier' in done.stderr
    assert 'Missing key(s) in state_dict: "backbone.block1.1.norm1.weight"' in done.stderr


def test_a_hostile_checkpoint_is_tested_without_executing_it(trained, tmp_path):
    """And metrics that are tensors are written as plain numbers."""
    content = torch.load(trained / 'run/epoch_2.pth', weights_only=False)
    content['evil'] = content['meta']['evil'] = ShellOnLoad(tmp_path / 'touched')
    torch.save(content, tmp_path / 'hostile.pth')
    out = tmp_path / 'metrics.yaml'
    config = tmp_path / 'config.py'
    config.write_text(
        f"_base_ = '{ROOT / DEMO}'\ntest_evaluator = dict(_delete_=True, type='mmpretrain.ConfusionMatrix')\n"
    )
    options = ['--work-dir', tmp_path / 'test', '--out', out, *small_demo(trained)]
    done = run('test.py', config, tmp_path / 'hostile.pth', *options)
    assert not (tmp_path / 'touched').exists()
    assert 'hostile.pth holds objects of unsupported types' in done.stdout + done.stderr
    matrix = np.array(yaml.safe_load(out.read_text())['confusion_matrix/result'])
    assert matrix.shape == (10, 10)
    assert matrix.sum() == 20


def test_mmpretrains_own_script_executes_nothing_either(trained, tmp_path):
    """With a config of ours, whose train loop resumes."""
    shutil.copytree(trained / 'run', tmp_path / 'run')
    content = torch.load(trained / 'run/epoch_2.pth', weights_only=False)
    content['optimizer']['evil'] = [ShellOnLoad(tmp_path / 'touched')]
    torch.save(content, tmp_path / 'run/hostile.pth')
    script = Path(mmpretrain.__file__).parent / '.mim/tools/train.py'
    options = [*small_demo(trained)[:-1], 'train_cfg.max_epochs=3']
    command = [script, DEMO, '--work-dir', tmp_path / 'run', '--resume', tmp_path / 'run/hostile.pth']
    # Its own tool fills in less than ours.
    options += ['train_dataloader.persistent_workers=False', 'val_dataloader.persistent_workers=False']
    done = run(*command, *options, check=False)
    assert done.returncode != 0
    assert 'hostile.pth holds objects of unsupported types' in done.stderr
    assert 'optimizer.evil.0 (posix.system)' in done.stderr
    assert not (tmp_path / 'touched').exists()


def out_args(out: Path, item: str | None = None) -> SimpleNamespace:
    return SimpleNamespace(out=str(out), out_item=item)


@pytest.mark.parametrize(
    ('out', 'evaluator', 'message'),
    [
        ('scores.txt', 'mmpretrain.Accuracy', r'has to be a file that ends in \.json.*but got .*scores\.txt'),
        ('folder', 'mmpretrain.Accuracy', r'for segmentation, a folder.*but got .*folder'),
    ],
)
def test_names_that_cannot_be_written_are_refused_first(tmp_path, out, evaluator, message):
    tool = runpy.run_path(str(ROOT / 'tools/test.py'))
    with pytest.raises(ValueError, match=message):
        tool['apply_out'](Config(dict(test_evaluator=dict(type=evaluator))), out_args(tmp_path / out))


def test_a_folder_gets_the_predictions_of_a_segmentor(tmp_path):
    """As in mmseg's own tool."""
    tool = runpy.run_path(str(ROOT / 'tools/test.py'))
    cfg = Config(dict(test_evaluator=dict(type='mmseg.IoUMetric', iou_metrics=['mIoU'])))
    tool['apply_out'](cfg, out_args(tmp_path / 'maps'))
    assert cfg.test_evaluator.output_dir == str(tmp_path / 'maps')
    assert (tmp_path / 'maps').is_dir()


@pytest.mark.parametrize(
    ('scope', 'out', 'item', 'written', 'dump'),
    [
        ('mmpretrain', 'a.pkl', None, 'pred', 'DumpResults'),
        ('mmdet', 'a.pickle', None, 'pred', 'mmdet.DumpDetResults'),
        ('mmpretrain', 'a.pkl', 'metrics', 'metrics', None),
        ('mmpretrain', 'a.json', None, 'metrics', None),
        ('mmpretrain', 'a.json', 'pred', None, r'--out-item pred needs an --out that ends in \.pkl.* got .*a\.json'),
        ('mmseg', 'folder', 'metrics', None, r'--out-item metrics needs an --out that ends in \.json.* got .*folder'),
    ],
)
def test_out_item_decides_what_is_written(tmp_path, scope, out, item, written, dump):
    tool = runpy.run_path(str(ROOT / 'tools/test.py'))
    cfg = Config(dict(default_scope=scope, test_evaluator=dict(type='mmseg.IoUMetric')))
    args = out_args(tmp_path / out, item)
    if written is None:
        with pytest.raises(ValueError, match=dump):
            tool['apply_out'](cfg, args)
        return
    tool['apply_out'](cfg, args)
    assert args.out_item == written
    dumps = [dict(type=dump, out_file_path=args.out)] if dump else []
    assert tool['list_evaluators'](cfg) == [dict(type='mmseg.IoUMetric'), *dumps]


def test_images_without_labels_are_predicted(trained, tmp_path):
    """ImageNet's test split through the tool: the predictions in a file, image by image."""
    (tmp_path / 'test').mkdir()
    for index, level in enumerate((10, 120, 230)):
        cv2.imwrite(str(tmp_path / f'test/{index}.png'), np.full((40, 40, 3), level, dtype=np.uint8))
    config = tmp_path / 'config.py'
    config.write_text(
        f"_base_ = '{ROOT / DEMO}'\ntest_dataloader = dict(num_workers=0, dataset=dict(_delete_=True, "
        f"type='mmpretrain.ImageNet', data_root='{tmp_path}', split='test', pipeline=_base_.test_pipeline))\n"
    )
    arguments = [config, trained / 'run/epoch_2.pth', '--work-dir', tmp_path / 'run']
    run('test.py', *arguments, '--out', tmp_path / 'predictions.pkl')
    predictions = load(tmp_path / 'predictions.pkl')
    assert [Path(prediction['img_path']).name for prediction in predictions] == ['0.png', '1.png', '2.png']
    assert all(prediction['pred_score'].shape == (10,) for prediction in predictions)
    assert all('gt_label' not in prediction for prediction in predictions)
    done = run('test.py', *arguments, '--out', tmp_path / 'scores.json', check=False)
    assert done.returncode != 0
    assert 'the test set, mmpretrain.ImageNet, has no labels, so there are no metrics' in done.stderr


@pytest.mark.parametrize(
    ('dataset', 'evaluator', 'labelled'),
    [
        (dict(type='CustomDataset', with_label=False), 'Accuracy', False),
        (dict(type='CustomDataset', data_prefix='test'), 'Accuracy', True),
        (dict(type='mmpretrain.ImageNet', split='test'), 'Accuracy', False),
        (dict(type='mmpretrain.ImageNet', split='val'), 'Accuracy', True),
        # mmpretrain's may have its prefix in a dict, and labels in a list.
        (dict(type='ImageNet', data_prefix=dict(img_path='val'), ann_file='meta/val.txt'), 'Accuracy', True),
        (dict(type='mmseg.ADE20KDataset', data_prefix=dict(img_path='images')), 'mmseg.IoUMetric', False),
        (dict(type='ADE20KDataset', data_prefix=dict(img_path='a', seg_map_path='b')), 'IoUMetric', True),
        (dict(type='CocoDataset', data_prefix=dict(img='val2017/')), 'CocoMetric', True),
    ],
)
def test_whether_there_are_labels(dataset, evaluator, labelled):
    tool = runpy.run_path(str(ROOT / 'tools/test.py'))
    cfg = Config(dict(test_dataloader=dict(dataset=dataset), test_evaluator=dict(type=evaluator)))
    assert tool['has_labels'](cfg) == labelled


def test_what_is_written_is_plain():
    tool = runpy.run_path(str(ROOT / 'tools/test.py'))
    metrics = dict(matrix=torch.eye(2), score=np.float32(0.5), best=(torch.tensor(3), 'a'), inner={1: np.arange(2)})
    expected = dict(matrix=[[1.0, 0.0], [0.0, 1.0]], score=0.5, best=[3, 'a'], inner={'1': [0, 1]})
    assert tool['as_plain'](metrics) == expected
    assert json.loads(json.dumps(expected)) == expected


def test_truncated_checkpoint_is_refused(trained):
    truncated = trained / 'truncated.pth'
    truncated.write_bytes((trained / 'run/epoch_2.pth').read_bytes()[:5000])
    for tool, args in (('test.py', [truncated]), ('train.py', ['--resume', truncated])):
        done = run(tool, DEMO, *args, '--work-dir', trained / 'truncated', *small_demo(trained), check=False)
        assert done.returncode != 0
        assert 'truncated.pth' in done.stderr
        assert 'truncated' in done.stderr


@pytest.mark.parametrize('max_share', [0.01, 0.0])
def test_corrupt_picture_is_replaced_and_named_unless_that_is_too_many(trained, max_share):
    """In a worker process, as in real runs; a run that is stopped leaves no checkpoint."""
    victim = sorted((trained / 'data/train').rglob('*.png'))[5]
    whole = victim.read_bytes()
    victim.write_bytes(whole[:60])
    options = [option for option in small_demo(trained) if 'num_workers' not in option]
    options += [f'default_hooks.readable_images.max_share={max_share}']
    work_dir = trained / f'corrupt_{max_share}'
    try:
        done = run('train.py', DEMO, '--work-dir', work_dir, *options, check=False)
    finally:
        victim.write_bytes(whole)
    output = done.stdout + done.stderr
    assert f'image {victim} cannot be read' in output
    if max_share:
        assert done.returncode == 0, output[-3000:]
        assert (work_dir / 'epoch_2.pth').is_file()
    else:
        assert done.returncode != 0
        assert 'allows max_share=0.0' in done.stderr
        assert not list(work_dir.glob('*.pth'))


def test_missing_data_is_named_before_anything_is_built(tmp_path):
    done = run('train.py', DEIT, '--work-dir', tmp_path / 'run', check=False)
    assert done.returncode != 0
    assert 'data/imagenet/train, which train_dataloader.dataset reads, does not exist' in done.stderr
    assert not (tmp_path / 'run').exists()


def test_missing_teacher_is_named_before_anything_is_built(tmp_path):
    config = 'configs/tokenmix/deit-tiny_tokenmix_8xb128-310e_in1k.py'
    done = run('train.py', config, '--work-dir', tmp_path / 'run', check=False)
    assert done.returncode != 0
    assert (
        'model.teacher.init_cfg.checkpoint is work_dirs/deit-small_cutmix_8xb128-300e_in1k/epoch_300.pth, but there is '
        'no such file. Pretrain first (python tools/train.py configs/cutmix/deit-small_cutmix_8xb128-300e_in1k.py), or '
        'set another: --cfg-options model.teacher.init_cfg.checkpoint=PATH'
    ) in done.stderr
    assert not (tmp_path / 'run').exists()


def test_imagenet_config_trains_on_imagenet_layout(tmp_path):
    """DeiT-T on real JPEG files, in the layout with lists."""
    rng = np.random.default_rng(0)
    (tmp_path / 'imagenet/meta').mkdir(parents=True)
    names = [f'{synset}/{index}.JPEG' for synset in ('n01440764', 'n01443537') for index in range(2)]
    for split in ('train', 'val'):
        lines = [f'{name} {label}' for name, label in zip(names, (0, 0, 1, 999), strict=True)]
        (tmp_path / f'imagenet/meta/{split}.txt').write_text('\n'.join(lines))
        for synset in ('n01440764', 'n01443537'):
            folder = tmp_path / 'imagenet' / split / synset
            folder.mkdir(parents=True)
            for index in range(2):
                cv2.imwrite(str(folder / f'{index}.JPEG'), rng.integers(0, 256, (240, 260, 3), dtype=np.uint8))
    run(
        'train.py', DEIT, '--work-dir', tmp_path / 'run', '--auto-scale-lr', '--cfg-options',
        f'train_dataloader.dataset.data_root={tmp_path}/imagenet',
        f'val_dataloader.dataset.data_root={tmp_path}/imagenet',
        'train_dataloader.batch_size=2', 'val_dataloader.batch_size=2',
        'train_dataloader.num_workers=0',
        'val_dataloader.num_workers=0',
        'train_cfg.max_epochs=1', 'default_hooks.logger.interval=1', 'param_scheduler=None',
        # Processors may emulate bfloat16, which takes ten times as long.
        'optim_wrapper.type=OptimWrapper',
    )  # fmt: skip
    rows = [row for row in scalars(tmp_path / 'run') if 'loss' in row]
    assert len(rows) == 2
    # 1e-3 for a batch of 1024, here of 2.
    assert rows[0]['lr'] == pytest.approx(1e-3 * 2 / 1024)


def test_sigint_ends_a_run(trained, tmp_path):
    """Control-C."""
    output = tmp_path / 'output.txt'
    options = [*small_demo(trained)[:-1], 'train_cfg.max_epochs=1000']
    process = start('train.py', DEMO, '--work-dir', tmp_path / 'run', *options, outputs=[output, output])
    while process.is_alive() and not (output.exists() and 'Epoch(train)' in output.read_text()):
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    assert process.exitcode not in (0, None)
    assert 'KeyboardInterrupt' in output.read_text()


def test_launchers_are_valid_shell():
    for script in (*(ROOT / 'tools').glob('*.sh'), ROOT / '.ci/run'):
        subprocess.run(['bash', '-n', script], check=True)
        assert os.access(script, os.X_OK)
