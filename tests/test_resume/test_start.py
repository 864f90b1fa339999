"""What a run starts from: the last whole checkpoint, read once, and refused where it does not fit the model."""

import shutil

import pytest
import torch
from mmengine.runner import Runner
from opened_files import counted_opens
from processes import run_ranks
from resumable import small_config, write_images
from small_checkpoints import content, save, truncate
from tiny_runs import build, registered  # noqa: F401

from smmix_mm.resume.start import find_start, find_start_together, find_whole_checkpoint, prepare_start


def point_to(folder, path):
    (folder / 'last_checkpoint').write_text(str(path))


def test_the_last_checkpoint_is_taken_and_if_truncated_the_one_before(tmp_path):
    paths = [save(tmp_path, f'epoch_{number}.pth', 10 * number) for number in (8, 9, 10)]
    save(tmp_path, 'best_top1_epoch_10.pth', 100, with_optimizer=False)
    point_to(tmp_path, paths[2])
    assert find_whole_checkpoint(tmp_path) == str(paths[2])
    truncate(paths[2])
    # By what was done, not by the order of names: epoch_9 is before epoch_10.
    assert find_whole_checkpoint(tmp_path) == str(paths[1])
    for path in paths[:2]:
        truncate(path)
    with pytest.raises(ValueError, match=r'none is complete: .*epoch_10.pth is truncated.*epoch_8.pth is truncated'):
        find_whole_checkpoint(tmp_path)


@pytest.mark.parametrize('pointer', [None, '', 'nowhere/epoch_7.pth', '\0\0\0'], ids=['no', 'empty', 'lost', 'zeroed'])
def test_without_a_pointer_the_furthest_is_taken(tmp_path, pointer):
    save(tmp_path, 'epoch_2.pth', 20)
    interrupted = save(tmp_path, 'interrupted_iter_25.pth', 25)
    if pointer is not None:
        (tmp_path / 'last_checkpoint').write_text(pointer)
    assert find_whole_checkpoint(tmp_path) == str(interrupted)


def test_an_older_checkpoint_is_taken_if_the_pointer_says_so(tmp_path):
    """The run was killed between the two: it goes on from either to the same end."""
    older = save(tmp_path, 'epoch_2.pth', 20)
    save(tmp_path, 'epoch_3.pth', 30)
    point_to(tmp_path, older)
    assert find_whole_checkpoint(tmp_path) == str(older)


def test_a_copied_run_goes_on_from_its_own_files(tmp_path):
    (tmp_path / 'run').mkdir()
    point_to(tmp_path / 'run', save(tmp_path / 'run', 'epoch_2.pth', 20))
    shutil.copytree(tmp_path / 'run', tmp_path / 'copy')
    assert find_whole_checkpoint(tmp_path / 'copy') == str(tmp_path / 'copy/epoch_2.pth')
    # Checkpoints elsewhere, as `out_dir` of the hook puts them.
    point_to(tmp_path, tmp_path / 'run/epoch_2.pth')
    assert find_whole_checkpoint(tmp_path) == str(tmp_path / 'run/epoch_2.pth')


def test_nothing_to_go_on_from_is_no_error(tmp_path):
    save(tmp_path, 'best_top1_epoch_10.pth', 100, with_optimizer=False)
    assert find_whole_checkpoint(tmp_path) is None
    assert find_whole_checkpoint(tmp_path / 'new') is None


def test_a_truncated_checkpoint_that_was_named_is_refused(tmp_path):
    newer, older = save(tmp_path, 'epoch_3.pth', 30), save(tmp_path, 'epoch_2.pth', 20)
    assert find_start(tmp_path, str(newer)).path == str(newer)
    truncate(newer)
    with pytest.raises(
        ValueError, match=r'epoch_3.pth is truncated .*; the newest complete checkpoint in its folder is .*epoch_2.pth'
    ):
        find_start(tmp_path, str(newer))
    truncate(older)
    with pytest.raises(ValueError, match='its folder has no complete checkpoint'):
        find_start(tmp_path, str(newer))
    assert find_start(tmp_path, 'https://example.org/epoch_3.pth').path == 'https://example.org/epoch_3.pth'


def train_a_step(work_dir, **settings):
    """Until the first step of what is built is over."""
    runner = build(work_dir, hooks=[dict(type='StopHook', number=7)], **settings)
    with counted_opens() as opened:
        runner.train()
    return runner, opened


@pytest.mark.usefixtures('registered')
@pytest.mark.parametrize('flexible', [False, True], ids=['Runner', 'FlexibleRunner'])
@pytest.mark.parametrize('by_epoch', [True, False])
def test_a_checkpoint_is_opened_once(tmp_path, by_epoch, flexible):
    """Found, checked, compared with the model and loaded, after one look, whichever script trains."""
    settings = dict(by_epoch=by_epoch, flexible=flexible)
    build(tmp_path / 'run', hooks=[dict(type='StopHook', number=4)], **settings).train()
    start = (tmp_path / 'run/last_checkpoint').read_text()
    for name, how in dict(last=dict(resume=True), named=dict(resume=True, load_from=start)).items():
        shutil.copytree(tmp_path / 'run', tmp_path / name)
        path = str(tmp_path / name / start.rpartition('/')[2]) if name == 'last' else start
        runner, opened = train_a_step(tmp_path / name, **how, **settings)
        assert runner.iter > 4
        assert opened[path] == 1
    runner, opened = train_a_step(tmp_path / 'weights', load_from=start, **settings)
    assert opened[start] == 1
    # tools/train.py looks before the loop does.
    runner = build(tmp_path / 'last', resume=True, load_from=start, **settings)
    with counted_opens() as opened:
        prepare_start(runner)
        prepare_start(runner)
    assert opened[start] == 1


@pytest.mark.usefixtures('registered')
def test_a_checkpoint_that_nothing_points_at_is_read_once_and_the_others_are_only_looked_at(tmp_path, monkeypatch):
    build(tmp_path, hooks=[dict(type='StopHook', number=4)]).train()
    (tmp_path / 'last_checkpoint').unlink()
    read = []
    monkeypatch.setattr('smmix_mm.resume.start.read_whole', lambda path: read.append(path.name) or {})
    find_whole_checkpoint(tmp_path)
    assert read == ['iter_4.pth']


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """The config of a classifier, and a checkpoint of it."""
    folder = tmp_path_factory.mktemp('trained')
    write_images(folder / 'train', count=16)
    cfg = small_config(folder)
    cfg.merge_from_dict({'train_dataloader.num_workers': 0, 'train_cfg.max_epochs': 1, 'work_dir': str(folder / 'run')})
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    cfg.default_hooks.checkpoint.save_best = None
    cfg.default_hooks.checkpoint.interval = 2
    cfg.experiment_name = 'trained'
    Runner.from_cfg(cfg).train()
    return cfg, folder / 'run/iter_2.pth'


@pytest.mark.parametrize('change', [{'backbone.arch.num_layers': 2}, {'backbone.patch_size': 4}])
@pytest.mark.parametrize('resume', [True, False])
def test_a_checkpoint_of_another_architecture_is_refused_in_any_script(tmp_path, trained, resume, change):
    """mmengine would load what fits. This is all that the train scripts of mmpretrain, mmdet and mmseg do."""
    cfg = trained[0].copy()
    cfg.merge_from_dict({f'model.{key}': value for key, value in change.items()})
    cfg.merge_from_dict(dict(resume=resume, load_from=str(trained[1]), work_dir=str(tmp_path / 'run')))
    cfg.experiment_name = f'another_{tmp_path.name}'
    with pytest.raises(ValueError, match=r'iter_2\.pth does not fit MixingClassifier:'):
        Runner.from_cfg(cfg).train()


def test_weights_to_start_from_may_have_another_head_but_no_checkpoint_to_resume(tmp_path, trained):
    cfg = trained[0].copy()
    cfg.merge_from_dict({'model.head.num_classes': 7, 'data_preprocessor.num_classes': 7})
    cfg.merge_from_dict(dict(resume=False, load_from=str(trained[1]), work_dir=str(tmp_path / 'run')))
    # Its averages are there from before_run on.
    cfg.custom_hooks = []
    cfg.experiment_name = 'another_head'
    runner = Runner.from_cfg(cfg)
    prepare_start(runner)
    runner.load_or_resume()
    weights = torch.load(trained[1], weights_only=False)['state_dict']
    assert runner.model.backbone.pos_embed.equal(weights['backbone.pos_embed'])
    cfg.merge_from_dict(dict(resume=True))
    cfg.experiment_name = 'another_head_resumed'
    with pytest.raises(ValueError, match=r'iter_2\.pth does not fit MixingClassifier:\n(.*\n)*.*head'):
        Runner.from_cfg(cfg).train()


def find_as_rank(rank, work_dir):
    path = str(work_dir / 'epoch_3.pth')
    with counted_opens() as opened:
        start = find_start_together(work_dir, None)
    assert (start.path, start.content['meta'], opened[path]) == (path, content(30)['meta'], 1)
    truncate(work_dir / f'truncated_{rank}.pth')
    with pytest.raises(ValueError, match=r'truncated_0\.pth is truncated'):
        find_start_together(work_dir, str(work_dir / 'truncated_0.pth'))


def test_each_rank_opens_the_checkpoint_once_and_hears_of_errors(tmp_path):
    point_to(tmp_path, save(tmp_path, 'epoch_3.pth', 30))
    for rank in range(2):
        save(tmp_path, f'truncated_{rank}.pth', 40)
    run_ranks(find_as_rank, tmp_path)
