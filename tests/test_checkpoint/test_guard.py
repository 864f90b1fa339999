"""No checkpoint executes anything, by whichever way it is read; what runs write is read whole."""

import argparse
import copy
import functools
import http.server
import io
import pickle
import threading
from collections import OrderedDict
from pathlib import Path

import mmpretrain
import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.registry import PARAM_SCHEDULERS
from mmengine.runner import load_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader, _load_checkpoint
from mmpretrain.models.backbones import ResNet
from resumable import differences
from tiny_runs import build, outcome, registered  # noqa: F401
from torch import nn
from unsafe_pickle import HOSTILE, EvalOnLoad, ShellOnLoad, TouchOnLoad

from smmix_mm.checkpoint import guard
from smmix_mm.checkpoint.unpickling import RestrictedUnpickler
from smmix_mm.models import PVT
from smmix_mm.registry import MODELS

HEAD = dict(type='mmpretrain.VisionTransformerClsHead', num_classes=3, in_channels=16)
BACKBONE = dict(
    type='mmpretrain.VisionTransformer',
    arch=dict(embed_dims=16, num_layers=2, num_heads=1, feedforward_channels=16),
    img_size=16,
    patch_size=8,
)


@pytest.fixture
def touched(tmp_path):
    """What a hostile file makes, if it is executed."""
    path = tmp_path / 'touched'
    yield path
    assert not path.exists()


def save(path: Path, content: dict, legacy: bool = False) -> str:
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return str(path)


@pytest.mark.parametrize('kind', HOSTILE)
def test_the_files_are_hostile(tmp_path, kind):
    """The control: plain unpickling executes them."""
    pickle.loads(pickle.dumps(kind(tmp_path / 'control')))
    assert (tmp_path / 'control').exists()


def as_checkpoint(weights: dict) -> dict:
    return {'meta': {'epoch': 1}, 'state_dict': weights}


def load_into(module: nn.Module, path: str) -> None:
    load_checkpoint(module, path)


def load_by_init_cfg(_: nn.Module, path: str) -> None:
    ResNet(18, init_cfg=dict(type='Pretrained', checkpoint=path)).init_weights()


def load_own_backbone(_: nn.Module, path: str) -> None:
    PVT('tiny', init_cfg=dict(type='Pretrained', checkpoint=path)).init_weights()


def load_teacher(_: nn.Module, path: str) -> None:
    teacher = dict(type='mmpretrain.ImageClassifier', backbone=BACKBONE, head=HEAD)
    teacher['init_cfg'] = dict(type='Pretrained', checkpoint=path)
    model = dict(type='smmix_mm.MixingClassifier', backbone=BACKBONE, head=HEAD, teacher=teacher)
    MODELS.build(copy.deepcopy(model)).init_weights()


def load_from_hub(_: nn.Module, path: str) -> None:
    mmpretrain.get_model('resnet18_8xb32_in1k', pretrained=path)


def load_by_library(_: nn.Module, path: str) -> None:
    _load_checkpoint(path, map_location='cpu')


ENTRIES = {
    load_into: lambda: nn.Linear(2, 2).state_dict(),
    load_by_init_cfg: lambda: ResNet(18).state_dict(),
    load_own_backbone: lambda: PVT('tiny').state_dict(),
    load_teacher: lambda: MODELS.build(
        dict(type='mmpretrain.ImageClassifier', backbone=copy.deepcopy(BACKBONE), head=dict(HEAD))
    ).state_dict(),
    load_from_hub: lambda: mmpretrain.get_model('resnet18_8xb32_in1k').state_dict(),
    load_by_library: lambda: nn.Linear(2, 2).state_dict(),
}
every_entry = pytest.mark.parametrize('entry', ENTRIES, ids=lambda entry: entry.__name__)


@every_entry
@pytest.mark.parametrize(('kind', 'legacy'), [(ShellOnLoad, False), (EvalOnLoad, True)])
def test_objects_beside_the_weights_are_left_out(tmp_path, touched, entry, kind, legacy):
    content = as_checkpoint(ENTRIES[entry]()) | {'evil': kind(touched), 'args': argparse.Namespace(lr=1)}
    content['meta']['evil'] = [{'nested': kind(touched)}]
    entry(nn.Linear(2, 2), save(tmp_path / 'file.pth', content, legacy))


@every_entry
def test_objects_among_the_weights_are_refused_by_name(tmp_path, touched, entry):
    weights = OrderedDict(ENTRIES[entry](), evil=EvalOnLoad(touched))
    path = save(tmp_path / 'file.pth', as_checkpoint(weights))
    with pytest.raises(ValueError, match=r'file\.pth holds .*evil'):
        entry(nn.Linear(2, 2), path)


def test_an_address_is_read_in_the_same_way(tmp_path, touched, monkeypatch):
    """From a server on this machine."""
    folder = tmp_path / 'served'
    folder.mkdir()
    save(folder / 'file.pth', as_checkpoint(nn.Linear(2, 2).state_dict()) | {'evil': ShellOnLoad(touched)})
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        module = nn.Linear(2, 2)
        load_checkpoint(module, f'http://127.0.0.1:{server.server_port}/file.pth')
        server.shutdown()
    assert torch.equal(module.weight, torch.load(folder / 'file.pth', weights_only=False)['state_dict']['weight'])
    # The control of this file executed it.
    assert touched.exists()
    touched.unlink()


def put(content: dict, place: str, value: object) -> None:
    *steps, last = place.split('.')
    for step in steps:
        content = content[int(step) if isinstance(content, list) else step]
    content[last] = value


@pytest.fixture
def checkpoint(tmp_path, registered):  # noqa: ARG001, F811
    """A real one in the midst of a run, as its content, and the outcome of the run."""
    build(tmp_path / 'whole').train()
    content = torch.load(tmp_path / 'whole/iter_6.pth', weights_only=False)
    return content, outcome(tmp_path / 'whole')


PLACES = ['message_hub.runtime_info.evil', 'optimizer.evil', 'optimizer.param_groups.0.evil', 'state_dict.evil']


@pytest.mark.parametrize('place', [*PLACES, 'evil', 'meta.evil'])
@pytest.mark.parametrize('resume', [True, False])
def test_resumed_runs_and_runs_that_start_from_weights(tmp_path, touched, checkpoint, place, resume):
    """In a part that is needed objects are refused by name, elsewhere left out; the run then goes on bit by bit."""
    content, expected = checkpoint
    put(content, place, TouchOnLoad(touched))
    path = save(tmp_path / 'hostile.pth', content)
    runner = build(tmp_path / 'run', resume=resume, load_from=path)
    if place in PLACES:
        with pytest.raises(ValueError, match=rf'hostile\.pth holds objects.*{place} .*weights_only=False'):
            runner.train()
    else:
        runner.train()
        if resume:
            assert differences(expected, outcome(tmp_path / 'run')) == []


def test_mmengines_own_loop_resumes_in_the_same_way(tmp_path, touched, checkpoint):
    """As under the libraries' own train scripts."""
    content, _ = checkpoint
    put(content, 'evil', TouchOnLoad(touched))
    put(content, 'message_hub.log_scalars.evil', EvalOnLoad(touched))
    path = save(tmp_path / 'hostile.pth', content)
    with pytest.raises(ValueError, match=r'message_hub\.log_scalars\.evil \(builtins\.eval\)'):
        build(
            tmp_path / 'run', resume=True, load_from=path, **{'train_cfg.type': 'mmengine.EpochBasedTrainLoop'}
        ).train()


def test_what_is_left_out_is_named(tmp_path, touched, monkeypatch):
    said = []
    monkeypatch.setattr(guard, 'print_log', lambda text, *_: said.append(text))
    content = as_checkpoint({'weight': torch.ones(1)}) | {'args': argparse.Namespace(lr=1), 'evil': EvalOnLoad(touched)}
    read = CheckpointLoader.load_checkpoint(save(tmp_path / 'file.pth', content))
    assert set(read) == {'meta', 'state_dict'}
    (text,) = said
    assert text.endswith('args (argparse.Namespace), evil (builtins.eval)')
    assert str(tmp_path / 'file.pth') in text


def states() -> dict:
    """What runs of mmengine's write, beside weights: its histories, schedules and optimisers, and odd plain values."""
    hub = MessageHub.get_instance('guard_states')
    for value in range(5):
        hub.update_scalar('train/loss', value / 3, count=2)
    hub.update_info('seed', 7)
    hub.update_info('numbers', np.arange(6, dtype=np.int64).reshape(2, 3))
    hub.update_info('names', {'a', 'b'})
    parameter = nn.Parameter(torch.randn(3))
    optimizer = torch.optim.AdamW([parameter], lr=0.1, betas=(0.8, 0.9))
    parameter.sum().backward()
    optimizer.step()
    settings = dict(
        StepLR=dict(step_size=2),
        MultiStepLR=dict(milestones=[1, 1, 3]),
        OneCycleLR=dict(eta_max=0.1, total_steps=10),
        CosineRestartLR=dict(periods=[2, 3], restart_weights=[1, 1], eta_min=0),
        ReduceOnPlateauLR=dict(monitor='loss'),
        ExponentialLR=dict(gamma=0.9),
    )
    names = sorted(name for name in PARAM_SCHEDULERS.module_dict if name.endswith('LR'))
    assert len(names) >= 10
    return dict(
        message_hub=hub.state_dict(),
        optimizer=optimizer.state_dict(),
        param_schedulers=[
            PARAM_SCHEDULERS.get(name)(torch.optim.SGD([parameter], lr=0.1), **settings.get(name, {})).state_dict()
            for name in names
        ],
        meta=dict(
            scalar=np.float64(0.5),
            whole=np.int64(3),
            size=torch.Size([2, 3]),
            raw=b'\x00\xff',
            number=1j,
            objects=np.array(['a', None], dtype=object),
            texts=np.array(['one', 'two']),
            nothing=None,
            dtype=torch.float16,
        ),
    )


def same(left: object, right: object) -> bool:
    if isinstance(left, HistoryBuffer):
        return left.mean() == right.mean() and left.max_length == right.max_length and same(left.data, right.data)
    if isinstance(left, dict):
        return type(left) is type(right) and list(left) == list(right) and all(same(left[k], right[k]) for k in left)
    if isinstance(left, (list, tuple)):
        return type(left) is type(right) and len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, (np.ndarray, torch.Tensor)):
        return left.dtype == right.dtype and left.shape == right.shape and (left == right).all()
    return type(left) is type(right) and left == right


@pytest.mark.parametrize('legacy', [False, True])
def test_what_runs_write_is_read_whole(tmp_path, legacy):
    content = states()
    read = CheckpointLoader.load_checkpoint(save(tmp_path / 'file.pth', content, legacy))
    assert same(content, read)


def test_versions_of_modules_are_read(tmp_path):
    """Load hooks ask for them."""
    module = nn.Sequential(nn.BatchNorm2d(2))
    read = CheckpointLoader.load_checkpoint(save(tmp_path / 'file.pth', as_checkpoint(module.state_dict())))
    assert read['state_dict']._metadata == module.state_dict()._metadata
    assert read['state_dict']._metadata['0']['version'] == 2


@pytest.mark.parametrize(
    ('program', 'message'),
    [
        (b'\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.', 'rot13'),
        (b'\x80\x02cnumpy\ndtype\nX\x02\x00\x00\x00V8\x85R.', 'V8'),
    ],
)
def test_admitted_functions_do_no_more_than_is_needed(program, message):
    with pytest.raises(pickle.UnpicklingError, match=message):
        RestrictedUnpickler(io.BytesIO(program)).load()


def test_what_was_handed_on_is_loaded_once_instead_of_the_file(tmp_path):
    path = tmp_path / 'weights.pth'
    torch.save(dict(state_dict=dict(w=torch.zeros(2)), parts=[(torch.zeros(1), 'a')]), path)

    def load(map_location):
        guard.hand_on(str(path), dict(state_dict=dict(w=torch.ones(2)), parts=[(torch.ones(1), 'a')]))
        return CheckpointLoader.load_checkpoint(str(path), map_location)

    assert load('cpu')['state_dict']['w'].tolist() == [1, 1]
    assert CheckpointLoader.load_checkpoint(str(path), 'cpu')['state_dict']['w'].tolist() == [0, 0]
    moved = load(torch.device('meta'))
    assert moved['state_dict']['w'].is_meta
    assert moved['parts'][0][0].is_meta
    assert moved['parts'][0][1] == 'a'
    # These may ask where the tensors were when they were saved.
    for map_location in (None, lambda storage, _: storage):
        assert load(map_location)['state_dict']['w'].tolist() == [0, 0]
    guard.hand_on('another.pth', {})
    assert CheckpointLoader.load_checkpoint(str(path), 'cpu')['state_dict']['w'].tolist() == [0, 0]
    guard.hand_on(str(path), {'w': torch.ones(1)})
    guard.forget_handed_on()
    assert CheckpointLoader.load_checkpoint(str(path), 'cpu')['state_dict']['w'].tolist() == [0, 0]
