import shutil
from io import BytesIO
from pathlib import Path

import pytest
import torch
from mmengine.fileio import BaseStorageBackend, FileClient, LocalBackend
from mmengine.fileio.backends.registry_utils import prefix_to_backends
from mmengine.hooks import Hook
from mmengine.runner import CheckpointLoader
from tiny_runs import build, outcome, registered  # noqa: F401

from smmix_mm.checkpoint import check_whole

pytestmark = pytest.mark.usefixtures('registered')


class Veto(Hook):
    """Refuses to have a checkpoint written, as the guard against infinite losses does."""

    def __init__(self, number):
        self.number = number

    def before_save_checkpoint(self, runner, checkpoint):
        if checkpoint['meta']['iter'] == self.number:
            raise RuntimeError('the loss is not finite')


def files(folder):
    return {path.name for path in Path(folder).iterdir() if path.is_file() and path.suffix == '.pth'}


@pytest.fixture
def watched(monkeypatch):
    """Looks into the folder whenever mmengine has written half a checkpoint."""
    seen = []
    save = torch.save

    def watch(content, file, *args, **kwargs):
        folder = watch.folder
        whole = {name for name in files(folder) if check_whole(folder / name) is None}
        seen.append(({name for name in whole if name.startswith('iter_')}, {name for name in whole if 'best' in name}))
        save(content, file, *args, **kwargs)

    monkeypatch.setattr(torch, 'save', watch)
    watch.seen = seen
    return watch


def test_with_one_kept_there_is_always_a_whole_one(tmp_path, watched):
    """The last and the best: each is there until the next has taken its place."""
    watched.folder = tmp_path
    build(tmp_path, **{'default_hooks.checkpoint.max_keep_ckpts': 1}).train()
    assert all(len(kept) == 1 for kept, _ in watched.seen[1:])
    first_best = next(index for index, (_, best) in enumerate(watched.seen) if best)
    assert all(best for _, best in watched.seen[first_best:])
    assert {name for name in files(tmp_path) if name.startswith('iter_')} == {'iter_12.pth'}
    assert len([name for name in files(tmp_path) if name.startswith('best_')]) == 1


def test_a_veto_leaves_the_older_checkpoint(tmp_path):
    runner = build(tmp_path, **{'default_hooks.checkpoint.max_keep_ckpts': 1})
    runner.register_hook(Veto(7))
    with pytest.raises(RuntimeError, match='the loss is not finite'):
        runner.train()
    assert {name for name in files(tmp_path) if name.startswith('iter_')} == {'iter_6.pth'}
    assert check_whole(tmp_path / 'iter_6.pth') is None
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'iter_6.pth')


def test_a_write_that_fails_leaves_the_older_checkpoint(tmp_path, monkeypatch):
    """mmengine's file backend dies half-way, as on a full disk."""
    put = LocalBackend.put

    def fail(self, content, path):
        if 'iter_7' not in str(path):
            return put(self, content, path)
        Path(path).write_bytes(content[:200])
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(LocalBackend, 'put', fail)
    with pytest.raises(OSError, match=r'iter_7.pth cannot be written .*bytes free.*--resume'):
        build(tmp_path, **{'default_hooks.checkpoint.max_keep_ckpts': 1}).train()
    assert {name for name in files(tmp_path) if name.startswith('iter_')} == {'iter_6.pth'}
    assert check_whole(tmp_path / 'iter_6.pth') is None
    assert [path.name for path in tmp_path.glob('.*')] == ['.lock']


def test_a_copied_run_leaves_the_files_of_the_first_alone(tmp_path):
    settings = {'default_hooks.checkpoint.max_keep_ckpts': 1}
    build(tmp_path / 'run', **{**settings, 'train_cfg.max_epochs': 1}).train()
    shutil.copytree(tmp_path / 'run', tmp_path / 'copy')
    before = files(tmp_path / 'run')
    build(tmp_path / 'copy', resume=True, **settings).train()
    assert files(tmp_path / 'run') == before
    assert {name for name in files(tmp_path / 'copy') if name.startswith('iter_')} == {'iter_12.pth'}
    assert len([name for name in files(tmp_path / 'copy') if name.startswith('best_')]) == 1


def test_a_run_stopped_in_its_midst_is_not_published(tmp_path):
    settings = {'default_hooks.checkpoint.published_keys': ['meta', 'state_dict']}
    build(tmp_path, hooks=[dict(type='SignalHook', stage='train', number=6)], **settings).train()
    assert not list(tmp_path.glob('*-????????.pth'))
    build(tmp_path, resume=True, **settings).train()
    assert list(tmp_path.glob('iter_12-????????.pth'))


class Elsewhere(BaseStorageBackend):
    """Keeps files below a folder, which only it can write to."""

    folder = None

    def get(self, path):
        return self._place(path).read_bytes()

    def get_text(self, path, encoding='utf-8'):
        return self._place(path).read_text(encoding)

    def put(self, content, path):
        self._place(path).parent.mkdir(parents=True, exist_ok=True)
        self._place(path).write_bytes(content)

    def join_path(self, path, *paths):
        return '/'.join([path.rstrip('/'), *paths])

    def isfile(self, path):
        return self._place(path).is_file()

    def remove(self, path):
        self._place(path).unlink()

    def _place(self, path):
        return self.folder / path.removeprefix('s3://')


def load_elsewhere(path, map_location=None, **_):
    return torch.load(BytesIO(Elsewhere().get(path)), map_location, weights_only=False)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(Elsewhere, 'folder', tmp_path / 'elsewhere')
    # mmengine knows the prefix to two registries, an older one among them.
    for prefixes in (prefix_to_backends, FileClient._prefix_to_backends):
        monkeypatch.setitem(prefixes, 's3', Elsewhere)
    for scheme in [scheme for scheme in CheckpointLoader._schemes if scheme.endswith('s3://')]:
        monkeypatch.setitem(CheckpointLoader._schemes, scheme, load_elsewhere)
    return Elsewhere.folder / 'folder/run'


def test_a_run_stopped_in_its_midst_is_saved_elsewhere(tmp_path, elsewhere):
    """On what is no local disk, and the run ends as if it was not stopped."""
    build(tmp_path / 'whole').train()
    settings = {'default_hooks.checkpoint.out_dir': 's3://folder', 'default_hooks.checkpoint.interval': 4}
    settings['default_hooks.checkpoint.max_keep_ckpts'] = 1
    build(tmp_path / 'run', hooks=[dict(type='SignalHook', stage='train', number=6)], **settings).train()
    last = (tmp_path / 'run/last_checkpoint').read_text()
    assert last == 's3://folder/run/interrupted_iter_6.pth'
    assert files(elsewhere) >= {'interrupted_iter_6.pth', 'iter_4.pth'}
    build(tmp_path / 'run', resume=True, **settings).train()
    assert files(elsewhere) >= {'interrupted_iter_6.pth', 'iter_12.pth'}
    found, expected = (torch.load(path / 'iter_12.pth', weights_only=False) for path in (elsewhere, tmp_path / 'whole'))
    torch.testing.assert_close(found['state_dict'], expected['state_dict'], rtol=0, atol=0)


def test_accumulated_gradients_are_stored_between_updates_alone(tmp_path):
    build(tmp_path).train()
    stored = [number for number in range(1, 13) if 'accumulated_gradients' in read(tmp_path, number)]
    assert stored == [number for number in range(1, 13) if number % 3]
    (gradients,) = read(tmp_path, 5)['accumulated_gradients']
    assert gradients['layers.0.weight'].shape == (4, 3)
    assert gradients['layers.0.weight'].abs().sum() > 0


def read(folder, number):
    return torch.load(folder / f'iter_{number}.pth', weights_only=False)


def test_counters_are_those_of_the_state_under_both_runners(tmp_path):
    """FlexibleRunner would count one too many for a checkpoint written again after a validation."""
    for flexible in (False, True):
        folder = tmp_path / str(flexible)
        build(folder, flexible=flexible).train()
        for number in range(1, 13):
            meta = read(folder, number)['meta']
            assert meta['iter'] == number
            assert meta['epoch'] in ((number - 1) // 4, number // 4)
    assert outcome(tmp_path / 'False')['/meta/iter'] == 12
