"""Checkpoints are read without executing them, and refused by name where they do not fit."""

import argparse
import hashlib
import io
import json
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from unsafe_pickle import TouchOnLoad

from smmix_mm.checkpoint import check_fit, load_except, read_checkpoint, read_weights, write_weights
from smmix_mm.checkpoint.unpickling import RestrictedUnpickler
from smmix_mm.models import PVT

LAYOUTS = json.loads((Path(__file__).parents[1] / 'data' / 'checkpoint_layouts.json').read_text())


def make_weights() -> 'OrderedDict[str, torch.Tensor]':
    torch.manual_seed(0)
    return OrderedDict(
        weight=torch.randn(3, 4),
        half=torch.randn(2).half(),
        bfloat=torch.randn(2).bfloat16(),
        number=torch.tensor(7),
        flags=torch.tensor([True, False]),
        view=torch.arange(12.0).view(3, 4)[:, 1:3],
        parameter=nn.Parameter(torch.randn(5)),
    )


@pytest.mark.parametrize('zipped', [True, False], ids=['present format', 'former format'])
@pytest.mark.parametrize('wrapper', [None, 'model', 'state_dict'])
def test_reads_weights_bit_for_bit(tmp_path, zipped, wrapper):
    weights = make_weights()
    path = tmp_path / 'checkpoint.pth'
    content = weights if wrapper is None else {wrapper: weights, 'epoch': 3, 'args': argparse.Namespace(lr=1e-3)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    read = read_weights(path)
    assert list(read) == list(weights)
    for name, value in weights.items():
        assert read[name].dtype == value.dtype
        assert read[name].equal(value.detach())


@pytest.mark.parametrize('zipped', [True, False], ids=['present format', 'former format'])
def test_executes_nothing(tmp_path, zipped):
    """The control: plain unpickling runs the payload. Ours keeps the tensors and skips the rest."""
    touched = tmp_path / 'touched'
    path = tmp_path / 'checkpoint.pth'
    torch.save({'model': make_weights(), 'evil': TouchOnLoad(touched)}, path, _use_new_zipfile_serialization=zipped)
    assert read_weights(path)['number'] == 7
    assert not touched.exists()
    pickle.loads(pickle.dumps(TouchOnLoad(touched)))
    assert touched.exists()


def test_skips_objects_but_keeps_what_surrounds_them(tmp_path):
    path = tmp_path / 'checkpoint.pth'
    torch.save(
        {'args': argparse.Namespace(lr=1), 'array': np.arange(3), 'epoch': 3, 'names': ['a', 'b'], 'w': torch.ones(2)},
        path,
    )
    content = read_checkpoint(path)
    assert content['epoch'] == 3
    assert content['names'] == ['a', 'b']
    assert content['w'].tolist() == [1, 1]
    assert not isinstance(content['args'], argparse.Namespace)
    assert content['array'].tolist() == [0, 1, 2]


@pytest.mark.parametrize('kept', [0.0, 0.1, 0.5, 0.9, 0.99])
def test_truncated_file_is_named(tmp_path, kept):
    path = tmp_path / 'checkpoint.pth'
    torch.save({'state_dict': {'weight': torch.randn(100, 100)}}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ValueError, match=r'checkpoint\.pth.*truncated'):
        read_weights(path)


def test_missing_file_and_file_without_weights(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'nothing\.pth'):
        read_weights(tmp_path / 'nothing.pth')
    torch.save({'epoch': 3}, tmp_path / 'empty.pth')
    with pytest.raises(ValueError, match=r'empty\.pth holds no weights.*epoch'):
        read_weights(tmp_path / 'empty.pth')
    torch.save([1, 2], tmp_path / 'list.pth')
    with pytest.raises(ValueError, match='has to hold a dict'):
        read_weights(tmp_path / 'list.pth')


def test_torchscript_program_is_refused(tmp_path):
    path = tmp_path / 'program.pt'
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)
    with pytest.raises(ValueError, match='TorchScript'):
        read_weights(path)


def test_fit_names_what_differs():
    model = nn.Sequential(OrderedDict(body=nn.Linear(3, 4), head=nn.Linear(4, 5)))
    weights = dict(model.state_dict())
    check_fit(model, weights, 'file.pth', may_differ=())
    weights['body.weight'] = torch.zeros(4, 2)
    weights['extra'] = torch.zeros(1)
    del weights['head.bias']
    with pytest.raises(ValueError, match=r'file\.pth does not fit Sequential') as error:
        check_fit(model, weights, 'file.pth')
    assert 'Missing key(s) in state_dict: "head.bias"' in str(error.value)
    assert 'Unexpected key(s) in state_dict: "extra"' in str(error.value)
    assert 'size mismatch for body.weight' in str(error.value)
    assert '[4, 2]' in str(error.value)
    with pytest.raises(ValueError, match=r'body\.weight'):
        check_fit(model, weights, 'file.pth', may_differ=('head', 'extra'))
    check_fit(model, weights, 'file.pth', may_differ=('head', 'extra', 'body'))


def test_parts_that_are_kept_are_neither_loaded_nor_needed():
    model = nn.Sequential(OrderedDict(body=nn.Linear(3, 4), head=nn.Linear(4, 5)))
    own = model.head.weight.clone()
    weights = {
        'body.weight': torch.ones(4, 3),
        'body.bias': torch.ones(4),
        'head.weight': torch.ones(9, 9),
        'extra': own,
    }
    with pytest.raises(ValueError, match=r'file\.pth does not fit(.|\n)*extra'):
        load_except(model, weights, 'file.pth', kept=('head',))
    load_except(model, weights, 'file.pth', kept=('head', 'extra'))
    assert model.body.weight.equal(torch.ones(4, 3))
    assert model.body.bias.equal(torch.ones(4))
    assert model.head.weight.equal(own)


def test_fit_leaves_model_and_weights_alone_and_lets_hooks_mend(pvt_arch):
    """Position embeddings of another size pass; tensors that nothing resizes do not."""
    model = PVT(pvt_arch, img_size=32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    check_fit(model, PVT(pvt_arch, img_size=64).state_dict(), 'larger')
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    check_fit(model, PVT(pvt_arch, img_size=(32, 64)).state_dict(), 'oblong')
    other = {**pvt_arch, 'embed_dims': [4, 16, 24, 32]}
    with pytest.raises(ValueError, match='size mismatch for pos_embed1'):
        check_fit(model, PVT(other, img_size=32).state_dict(), 'narrow')


def test_changes_nothing_that_it_admits():
    """A pickle that sets an attribute of an admitted function: plain unpickling obeys, ours does not."""
    target = torch._utils._rebuild_parameter
    name = b'smmix_mm_touched'
    # protocol 2; push the function; state (None, {name: 1}); BUILD; stop
    program = (
        b'\x80\x02ctorch._utils\n_rebuild_parameter\nN}X' + len(name).to_bytes(4, 'little') + name + b'K\x01s\x86b.'
    )
    assert RestrictedUnpickler(io.BytesIO(program)).load() is target
    assert not hasattr(target, name.decode())
    pickle.loads(program)
    assert target.smmix_mm_touched == 1
    del target.smmix_mm_touched


def test_weights_among_which_is_an_object_are_refused(tmp_path):
    torch.save({'state_dict': {'a': torch.zeros(1), 'b': argparse.Namespace()}}, tmp_path / 'odd.pth')
    with pytest.raises(ValueError, match=r'odd\.pth holds values of unsupported types in b;'):
        read_weights(tmp_path / 'odd.pth')


def test_written_weights_hold_no_more_than_they_show(tmp_path):
    path = tmp_path / 'folder' / 'weights.pth'
    write_weights(path, {'view': torch.zeros(1000, 1000)[:2, :2]})
    assert path.stat().st_size < 10_000
    assert read_weights(path)['view'].shape == (2, 2)
    assert [file.name for file in path.parent.iterdir()] == ['weights.pth']


def test_hash_in_the_name_is_that_of_the_file_and_comes_again(tmp_path):
    weights = make_weights()
    path = write_weights(tmp_path / 'weights.v1.pth', weights, hashed=True)
    assert path.name == f'weights.v1-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.pth'
    before = path.read_bytes()
    # Read back, the tensors lie elsewhere in memory.
    assert write_weights(tmp_path / 'weights.v1', read_weights(path), hashed=True) == path
    assert path.read_bytes() == before
    assert write_weights(tmp_path / 'weights.v1.pth', {'a': torch.zeros(2)}, hashed=True) != path
    assert len(list(tmp_path.iterdir())) == 2


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'weights.pth'
    write_weights(path, {'a': torch.zeros(2)})

    def fail(_, file):
        file.write(b'half')
        raise OSError('disk full')

    monkeypatch.setattr(torch, 'save', fail)
    with pytest.raises(OSError, match='disk full'):
        write_weights(path, {'a': torch.ones(2)})
    monkeypatch.undo()
    assert read_weights(path)['a'].tolist() == [0, 0]
    assert len(list(tmp_path.iterdir())) == 1
