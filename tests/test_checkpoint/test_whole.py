"""Truncated and corrupt checkpoints are told from complete ones, whatever is wrong with them."""

import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opened_files import counted_opens
from small_checkpoints import content, save, truncate

from smmix_mm.checkpoint import TornCheckpointError, check_whole, read_whole
from smmix_mm.files import write_whole


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
    damaged = bytearray(whole)
    damaged[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.getbasetemp() / 'flipped.pth'
    path.write_bytes(damaged)
    if check_whole(path) is None:
        read = torch.load(path, weights_only=False)
        assert read['meta'] == content(1)['meta']
        assert all(torch.equal(read['state_dict'][name], value) for name, value in content(1)['state_dict'].items())
        assert torch.equal(read['optimizer']['state'][0], torch.ones(50))


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
    truncate(tmp_path / 'epoch_3.pth/rank1.pth')
    assert 'rank1.pth, which is truncated' in check_whole(tmp_path / 'epoch_3.pth')


@pytest.mark.parametrize('zipped', [True, False], ids=['present format', 'former format'])
def test_a_checkpoint_is_read_and_checked_at_once(tmp_path, zipped):
    path = tmp_path / 'epoch_1.pth'
    torch.save(content(1), path, _use_new_zipfile_serialization=zipped)
    with counted_opens() as opened:
        read = read_whole(path)
    assert opened[str(path)] == 1
    assert read['meta'] == content(1)['meta']
    assert read['state_dict']['weight'].equal(content(1)['state_dict']['weight'])
    with counted_opens() as opened:
        check_whole(path)
    assert opened[str(path)] == 1


def test_what_is_wrong_is_said_with_the_name(tmp_path):
    path = save(tmp_path, 'epoch_1.pth', 1)
    truncate(path)
    with pytest.raises(TornCheckpointError, match=rf'^{path} is truncated or corrupt \(\d+ bytes') as error:
        read_whole(path)
    # As one rank tells the others.
    told = pickle.loads(pickle.dumps(error.value))
    assert (str(told), told.fault) == (str(error.value), check_whole(path))
    with pytest.raises(FileNotFoundError, match='there is no checkpoint'):
        read_whole(tmp_path / 'none.pth')
    torch.save([1, 2], path)
    with pytest.raises(TornCheckpointError, match='has to hold a dict, but holds a list'):
        read_whole(path)
