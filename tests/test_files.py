"""Files in place in one step, and locks."""

import multiprocessing
from pathlib import Path

import pytest
from small_checkpoints import save

from smmix_mm.files import lock_file, remove_unfinished, write_whole


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


def test_a_folder_that_was_being_replaced_gets_its_name_back(tmp_path):
    (tmp_path / '.best.pth.outdated.unfinished/shard').mkdir(parents=True)
    (tmp_path / '.best.pth.unfinished').mkdir()
    remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ['best.pth']
    assert (tmp_path / 'best.pth/shard').is_dir()


def test_what_a_killed_process_left_half_written_does_not_hinder_the_next(tmp_path):
    (tmp_path / '.data.unfinished/old').mkdir(parents=True)
    (tmp_path / '.data.outdated.unfinished/older').mkdir(parents=True)
    (tmp_path / 'data').mkdir()
    write_whole(tmp_path / 'data', Path.mkdir, sync=False)
    assert [path.name for path in tmp_path.iterdir()] == ['data']
    assert list((tmp_path / 'data').iterdir()) == []


def hold(path, ready, end):
    with path.open('a') as file:
        lock_file(file)
        ready.set()
        end.wait(60)


def test_a_lock_is_refused_or_waited_for_while_another_process_holds_it(tmp_path):
    context = multiprocessing.get_context('spawn')
    ready, end = context.Event(), context.Event()
    holder = context.Process(target=hold, args=(tmp_path / 'lock', ready, end))
    holder.start()
    assert ready.wait(60)
    with (tmp_path / 'lock').open('a') as file:
        assert not lock_file(file, wait=False)
        end.set()
        assert lock_file(file)
    holder.join()
