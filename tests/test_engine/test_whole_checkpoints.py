import resource
import shutil
import subprocess
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smmix_mm.engine.whole_checkpoints import (
    check_whole,
    find_start,
    find_whole_checkpoint,
    remove_unfinished,
    write_whole,
)
from smmix_mm.engine.work_dir import check_work_dir


def content(done, with_optimizer=True):
    weights = dict(weight=torch.arange(600.0).reshape(20, 30), bias=torch.ones(3))
    checkpoint = dict(meta=dict(iter=done, epoch=0), state_dict=weights, message_hub=dict(runtime_info={}))
    return checkpoint | (dict(optimizer=dict(state={0: torch.ones(50)})) if with_optimizer else {})


def save(folder, name, done, with_optimizer=True):
    path = folder / name
    write_whole(path, lambda unfinished: torch.save(content(done, with_optimizer), unfinished))
    return path


def point_to(folder, path):
    (folder / 'last_checkpoint').write_text(str(path))


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    return save(tmp_path_factory.mktemp('whole'), 'epoch_1.pth', 1).read_bytes()


def test_every_truncation_is_recognised(tmp_path, whole):
    path = tmp_path / 'epoch_1.pth'
    path.write_bytes(whole)
    assert check_whole(path) is None
    for length in (*range(1, len(whole), 37), *range(len(whole) - 70, len(whole))):
        path.write_bytes(whole[:length])
        assert 'truncated' in check_whole(path), length
    path.write_bytes(b'')
    assert check_whole(path).startswith('is truncated or corrupt (0 bytes')
    path.unlink()
    assert check_whole(path) == 'does not exist'


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_flipped_byte_is_recognised_or_does_not_matter(tmp_path_factory, whole, data):
    """Some bytes are padding, or the date of a file in the archive."""
    torn = bytearray(whole)
    torn[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.getbasetemp() / 'flipped.pth'
    path.write_bytes(torn)
    if check_whole(path) is None:
        read = torch.load(path, weights_only=False)
        assert read['meta'] == content(1)['meta']
        assert all(torch.equal(read['state_dict'][name], value) for name, value in content(1)['state_dict'].items())
        assert torch.equal(read['optimizer']['state'][0], torch.ones(50))


def tear(path):
    path.write_bytes(path.read_bytes()[:-300])


def test_the_last_checkpoint_is_taken_and_if_torn_the_one_before(tmp_path):
    paths = [save(tmp_path, f'epoch_{number}.pth', 10 * number) for number in (8, 9, 10)]
    save(tmp_path, 'best_top1_epoch_10.pth', 100, with_optimizer=False)
    point_to(tmp_path, paths[2])
    assert find_whole_checkpoint(tmp_path) == str(paths[2])
    tear(paths[2])
    # By what was done, not by the order of names: epoch_9 is before epoch_10.
    assert find_whole_checkpoint(tmp_path) == str(paths[1])
    for path in paths[:2]:
        tear(path)
    with pytest.raises(ValueError, match=r'none that is whole: .*epoch_10.pth is truncated.*epoch_8.pth is truncated'):
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


def test_a_torn_checkpoint_that_was_named_is_refused(tmp_path):
    torn, older = save(tmp_path, 'epoch_3.pth', 30), save(tmp_path, 'epoch_2.pth', 20)
    assert find_start(tmp_path, str(torn)) == str(torn)
    tear(torn)
    with pytest.raises(
        ValueError, match=r'epoch_3.pth is truncated .*; the newest whole one beside it is .*epoch_2.pth'
    ):
        find_start(tmp_path, str(torn))
    tear(older)
    with pytest.raises(ValueError, match='there is no whole one beside it'):
        find_start(tmp_path, str(torn))
    assert find_start(tmp_path, 'https://example.org/epoch_3.pth') == 'https://example.org/epoch_3.pth'


def test_sharded_checkpoints_are_folders(tmp_path):
    def write(unfinished):
        unfinished.mkdir()
        for rank in range(2):
            torch.save(content(30), unfinished / f'rank{rank}.pth')

    for _ in range(2):
        # The second time in the place of the first.
        write_whole(tmp_path / 'epoch_3.pth', write)
    assert check_whole(tmp_path / 'epoch_3.pth') is None
    assert [path.name for path in tmp_path.iterdir()] == ['epoch_3.pth']
    tear(tmp_path / 'epoch_3.pth/rank1.pth')
    assert 'rank1.pth, which is truncated' in check_whole(tmp_path / 'epoch_3.pth')


def test_a_failed_write_leaves_the_former_file(tmp_path):
    path = save(tmp_path, 'epoch_1.pth', 1)
    before = path.read_bytes()

    def fail(unfinished):
        unfinished.write_bytes(before[:100])
        assert path.read_bytes() == before
        raise RuntimeError('stopped')

    with pytest.raises(RuntimeError, match='stopped'):
        write_whole(path, fail)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_run_left_is_removed_and_nothing_else(tmp_path):
    kept = [save(tmp_path, 'epoch_1.pth', 1), tmp_path / '.hidden.pth', tmp_path / 'notes.unfinished']
    for path in kept[1:]:
        path.write_text('mine')
    (tmp_path / '.epoch_2.pth.unfinished').write_bytes(b'half')
    (tmp_path / '.epoch_3.pth.unfinished').mkdir()
    remove_unfinished(tmp_path)
    assert set(tmp_path.iterdir()) == set(kept)


@contextmanager
def mounted(folder, *options):
    folder.mkdir()
    done = subprocess.run(['mount', '-t', 'tmpfs', '-o', ','.join(options), 'tmpfs', folder], capture_output=True)
    if done.returncode != 0:
        pytest.skip(f'mounting is not allowed: {done.stderr.decode()}')
    try:
        yield folder
    finally:
        subprocess.run(['umount', '-l', folder], check=True)


def test_a_full_disk_is_said_and_spares_the_older_checkpoint(tmp_path):
    with mounted(tmp_path / 'disk', 'size=64k') as disk:
        older = save(disk, 'epoch_1.pth', 1)
        before = older.read_bytes()
        big = torch.zeros(40_000)
        with pytest.raises(OSError, match=r'epoch_2.pth cannot be written \(No space left.*no room is left .disk: \d+'):
            write_whole(disk / 'epoch_2.pth', lambda unfinished: unfinished.write_bytes(big.numpy().tobytes()))
        assert older.read_bytes() == before
        assert list(disk.iterdir()) == [older]


def test_a_read_only_disk_is_said_before_anything_is_built(tmp_path):
    with mounted(tmp_path / 'disk', 'ro') as disk:
        for work_dir in (disk, disk / 'new'):
            with pytest.raises(
                OSError, match=r'cannot be written \(Read-only file system\): .*choose another --work-dir'
            ):
                check_work_dir(work_dir)
        with pytest.raises(OSError, match='must not be written to'):
            write_whole(disk / 'epoch_2.pth', lambda unfinished: unfinished.write_bytes(b'0'))


def test_a_limit_on_file_sizes_is_said(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match=r'epoch_1.pth cannot be written \(File too large\): no room is left'):
            write_whole(tmp_path / 'epoch_1.pth', lambda unfinished: unfinished.write_bytes(bytes(5000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []
