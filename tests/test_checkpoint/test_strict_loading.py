"""Backbones load from what holds one, whole, or not at all."""

import argparse
import functools
import http.server
import json
import logging
import re
import threading
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from mmengine.logging import MessageHub, MMLogger
from mmengine.model import BaseModule, PretrainedInit
from mmengine.runner import save_checkpoint
from unsafe_pickle import TouchOnLoad

from smmix_mm.checkpoint.strict_loading import find_backbone
from smmix_mm.models import PVT
from smmix_mm.models.pretrained import load_backbone, load_classifier

LAYOUTS = json.loads((Path(__file__).parents[1] / 'data' / 'checkpoint_layouts.json').read_text())


@pytest.fixture
def log():
    """Lines that mmengine's logger tells the user while the test runs."""

    class Listener(logging.Handler):
        def emit(self, record):
            lines.append(record.getMessage())

    lines, listener = [], Listener(logging.INFO)
    MMLogger.get_current_instance().addHandler(listener)
    yield lines
    MMLogger.get_current_instance().removeHandler(listener)


@pytest.fixture
def serve(tmp_path):
    """A server of the test's folder on this machine; gives its address."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f'http://127.0.0.1:{server.server_port}'
        server.shutdown()


def fabricate(layout):
    return OrderedDict((name, torch.randn(shape)) for name, shape in dict(LAYOUTS[layout]).items())


def save_training(path, model):
    """What a run of ours leaves: weights, optimizer, log buffers, settings."""
    optimizer = torch.optim.AdamW(model.parameters())
    sum(parameter.sum() for parameter in model.parameters()).backward()
    optimizer.step()
    hub = MessageHub.get_instance('test_save_training')
    hub.update_scalar('train/loss', 0.5)
    state = {name: value.detach().clone() for name, value in model.state_dict().items()}
    content = dict(
        meta=dict(epoch=3, iter=7, cfg='a = 1', dataset_meta=argparse.Namespace()),
        state_dict=state,
        message_hub=hub.state_dict(),
        optimizer=optimizer.state_dict(),
        param_schedulers=[dict(last_step=7)],
    )
    save_checkpoint(content, str(path))
    MessageHub._instance_dict.pop('test_save_training')
    return state


def check_loaded(backbone, weights):
    """Each tensor is the file's; of the last position embedding without a class token, all rows but the first."""
    for name, value in backbone.state_dict().items():
        cut = name == 'pos_embed4' and backbone.out_type == 'featmap'
        assert value.equal(weights[name][:, 1:] if cut else weights[name]), name


@pytest.mark.parametrize('out_type', ['cls_token', 'featmap'])
@pytest.mark.parametrize('layout', ['pvt_tiny', 'smmix_pvt_tiny'])
@pytest.mark.parametrize('wrapper', [None, 'model', 'state_dict'])
def test_official_checkpoints_load_whole(tmp_path, log, out_type, layout, wrapper):
    weights, path = fabricate(layout), tmp_path / 'official.pth'
    torch.save({wrapper: weights, 'args': argparse.Namespace(lr=1)} if wrapper else weights, path)
    backbone = PVT('tiny', out_type=out_type)
    load_backbone(backbone, path)
    check_loaded(backbone, weights)
    count, left_out, fitted = (
        (159, '', 'none') if out_type == 'cls_token' else (156, 'cls_token, norm.*, ', 'pos_embed4')
    )
    total, heads = (161, 'head.*') if layout == 'pvt_tiny' else (163, 'head.*, token_head.*')
    assert log == [
        f'{path}: loaded {count} of {total} tensors into PVT; left out: {left_out}{heads}; shapes fitted: {fitted}'
    ]


@pytest.mark.parametrize('out_type', ['cls_token', 'featmap'])
@pytest.mark.parametrize('augments', [[], [dict(type='smmix_mm.SMMix')]], ids=['plain', 'SMMix'])
def test_training_checkpoints_of_ours_load_whole(tmp_path, log, make_classifier, make_backbone, out_type, augments):
    path = tmp_path / 'epoch_3.pth'
    state = save_training(path, make_classifier('pvt', augments=augments))
    backbone = make_backbone('pvt', out_type=out_type)
    log.clear()
    load_backbone(backbone, path)
    check_loaded(backbone, {name.removeprefix('backbone.'): value for name, value in state.items()})
    count, left_out, fitted = (
        (123, '', 'none') if out_type == 'cls_token' else (120, 'cls_token, norm.*, ', 'pos_embed4')
    )
    total, heads = (127, 'head.*, region_head.*') if augments else (125, 'head.*')
    assert log == [
        f'{path}: loaded {count} of {total} tensors into PVT from backbone.*; left out: {left_out}{heads}; '
        f'shapes fitted: {fitted}'
    ]


def test_the_copy_that_automix_keeps_is_not_taken_for_the_backbone(tmp_path, log, make_classifier, make_backbone):
    path = tmp_path / 'epoch_3.pth'
    model = make_classifier('pvt', augments=[dict(type='smmix_mm.AutoMix')])
    state = save_training(path, model)
    # So that the wrong one would be noticed.
    assert not state['mixing.methods.0.momentum_model.module.backbone.cls_token'].equal(state['backbone.cls_token'])
    backbone = make_backbone('pvt')
    log.clear()
    load_backbone(backbone, path)
    check_loaded(backbone, {name.removeprefix('backbone.'): value for name, value in state.items()})
    assert len(log) == 1
    assert 'left out: head.*, mixing.*; shapes fitted: none' in log[0]


@pytest.mark.parametrize('prefix', [None, 'model'])
def test_a_classifier_is_loaded_whole_without_what_only_training_uses(tmp_path, log, make_classifier, prefix):
    path = tmp_path / 'epoch_3.pth'
    augments = [dict(type='smmix_mm.AutoMix'), dict(type='smmix_mm.SMMix')]
    state = save_training(path, make_classifier('pvt', augments=augments))
    if prefix:
        torch.save({**{f'model.{name}': value for name, value in state.items()}, 'other': torch.ones(1)}, path)
    stock = make_classifier('pvt', type='mmpretrain.ImageClassifier')
    log.clear()
    load_classifier(stock, path, prefix)
    assert all(value.equal(state[name]) for name, value in stock.state_dict().items())
    assert re.search(rf'loaded {len(stock.state_dict())} of \d+ tensors into ImageClassifier', log[0])
    with pytest.raises(ValueError, match=r'has no tensors with prefix=.nothing.'):
        load_classifier(stock, path, 'nothing')


@pytest.mark.parametrize(
    ('before', 'told'),
    [
        ('', ''),
        ('module.', ''),
        ('backbone.', ' from backbone.*'),
        ('module.backbone.', ' from backbone.*'),
        ('_orig_mod.backbone.', ' from _orig_mod.backbone.*'),
        ('student.backbone.module.', ' from student.backbone.module.*'),
    ],
)
def test_backbone_is_found_below_any_prefix_and_classifiers_beside_it(tmp_path, log, make_backbone, before, told):
    source, backbone = make_backbone('pvt'), make_backbone('pvt')
    weights = {f'{before}{name}': value for name, value in source.state_dict().items()}
    outer = before.removesuffix('module.').removesuffix('backbone.') if 'backbone' in before else before
    weights |= {f'{outer}head.fc.weight': torch.zeros(1), f'{outer}region_head.bias': torch.zeros(1)}
    torch.save(weights, tmp_path / 'pvt.pth')
    load_backbone(backbone, tmp_path / 'pvt.pth')
    check_loaded(backbone, source.state_dict())
    assert len(log) == 1
    assert f'loaded 123 of 125 tensors into PVT{told}; left out: head.*, region_head.*;' in log[0]


@pytest.mark.parametrize('prefix', ['backbone', 'backbone.', 'module.backbone'])
def test_explicit_prefix_leaves_all_else_alone(tmp_path, log, make_backbone, prefix):
    """The backbone of a detector, say, or one of two."""
    source, backbone = make_backbone('pvt', out_type='featmap'), make_backbone('pvt', out_type='featmap')
    weights = {f'module.backbone.{name}': value for name, value in source.state_dict().items()}
    weights |= {f'module.teacher.{name}': torch.zeros_like(value) for name, value in source.state_dict().items()}
    torch.save({'state_dict': weights | {'module.neck.weight': torch.zeros(1)}}, tmp_path / 'detector.pth')
    load_backbone(backbone, tmp_path / 'detector.pth', prefix)
    assert all(value.equal(source.state_dict()[name]) for name, value in backbone.state_dict().items())
    assert (
        'loaded 120 of 241 tensors into PVT from backbone.*; left out: teacher.*, neck.*; shapes fitted: none' in log[0]
    )


def test_explicit_prefix_may_name_what_is_around_the_backbone(tmp_path, log, make_backbone):
    source, backbone = make_backbone('pvt'), make_backbone('pvt')
    weights = {f'student.backbone.{name}': value for name, value in source.state_dict().items()}
    weights |= {f'teacher.backbone.{name}': torch.zeros_like(value) for name, value in source.state_dict().items()}
    weights |= {'student.head.fc.weight': torch.zeros(1)}
    torch.save(weights, tmp_path / 'two.pth')
    load_backbone(backbone, tmp_path / 'two.pth', 'student')
    check_loaded(backbone, source.state_dict())
    assert 'loaded 123 of 247 tensors into PVT from student.backbone.*; left out: teacher.*, head.*;' in log[0]


@pytest.mark.parametrize('out_type', ['cls_token', 'featmap'])
def test_no_tensor_may_be_missing(tmp_path, make_backbone, out_type):
    """Every fifth of them, one after the other."""
    path, backbone = tmp_path / 'pvt.pth', make_backbone('pvt', out_type=out_type)
    weights = {f'backbone.{name}': value for name, value in make_backbone('pvt').state_dict().items()}
    for name in list(backbone.state_dict())[::5]:
        torch.save({key: value for key, value in weights.items() if key != f'backbone.{name}'}, path)
        with pytest.raises(ValueError, match=rf'pvt\.pth does not fit PVT:\n\tMissing.*: "{re.escape(name)}"') as error:
            load_backbone(backbone, path)
        assert len(str(error.value).splitlines()) == 2


@pytest.mark.parametrize('out_type', ['cls_token', 'featmap'])
def test_no_tensor_may_have_another_shape(tmp_path, make_backbone, out_type):
    """Nor another number of dimensions. Position embeddings of another square grid are resized instead."""
    path, backbone = tmp_path / 'pvt.pth', make_backbone('pvt', out_type=out_type)
    weights = make_backbone('pvt').state_dict()
    for number, name in enumerate(list(backbone.state_dict())[::5]):
        shape = ((*weights[name].shape[:-1], weights[name].shape[-1] + 1), (3,), (2, 3, 5))[number % 3]
        torch.save(weights | {name: torch.zeros(shape)}, path)
        with pytest.raises(ValueError, match=rf'pvt\.pth does not fit PVT:\n\tsize mismatch for {re.escape(name)}:'):
            load_backbone(backbone, path)


@pytest.mark.parametrize(
    ('before', 'stray', 'message'),
    [
        ('', 'surprise.weight', r'does not fit PVT:\n\tUnexpected.*"surprise\.weight"'),
        ('', 'block1.7.norm1.weight', r'does not fit PVT:\n\tUnexpected.*"block1\.7\.norm1\.weight"'),
        ('backbone.', 'backbone.surprise', r'does not fit PVT:\n\tUnexpected.*"surprise"'),
        ('backbone.', 'neck.weight', r"has 1 tensors that belong neither.*: neck\.weight; use prefix='backbone\.' to"),
        ('backbone.', 'head', r'has 1 tensors that belong neither.*: head;'),
        ('backbone.', 'teacher.head.weight', r'has 1 tensors that belong neither.*: teacher\.head\.weight;'),
        ('backbone.', 'header.weight', r'has 1 tensors that belong neither.*: header\.weight;'),
    ],
)
def test_strays_are_refused(tmp_path, make_backbone, before, stray, message):
    backbone = make_backbone('pvt')
    weights = {f'{before}{name}': value for name, value in backbone.state_dict().items()}
    torch.save(weights | {stray: torch.zeros(1)}, tmp_path / 'pvt.pth')
    with pytest.raises(ValueError, match=rf'pvt\.pth {message}'):
        load_backbone(backbone, tmp_path / 'pvt.pth')


def test_class_token_and_norm_are_no_strays_for_feature_maps_alone(tmp_path, make_backbone):
    """The other way round they are missing."""
    torch.save(make_backbone('pvt', out_type='featmap').state_dict(), tmp_path / 'dense.pth')
    with pytest.raises(ValueError, match=r'Missing key.*"cls_token", "norm\.weight", "norm\.bias"'):
        load_backbone(make_backbone('pvt'), tmp_path / 'dense.pth')


def test_two_backbones_are_refused(tmp_path, make_backbone):
    backbone = make_backbone('pvt')
    weights = {
        f'{of}backbone.{name}': value for of in ('', 'teacher.') for name, value in backbone.state_dict().items()
    }
    torch.save(weights, tmp_path / 'two.pth')
    with pytest.raises(
        ValueError, match=r"two\.pth has 2 backbones.*prefix to one of 'backbone\.', 'teacher\.backbone\.'"
    ):
        load_backbone(backbone, tmp_path / 'two.pth')


@pytest.mark.parametrize('prefix', [None, 'backbone'])
def test_files_without_the_backbone_are_refused_with_some_of_their_keys(tmp_path, make_backbone, prefix):
    """A DeiT has a class token and a final norm too."""
    torch.save(fabricate('deit_tiny'), tmp_path / 'deit.pth')
    message = "no tensors with prefix='backbone'" if prefix else 'no backbone with parts block1'
    with pytest.raises(ValueError, match=rf'deit\.pth has {message}.*it has cls_token.* and 144 more'):
        load_backbone(make_backbone('pvt'), tmp_path / 'deit.pth', prefix)


def test_other_architectures_are_found_and_told_what_they_lack(tmp_path):
    torch.save(fabricate('pvt_tiny'), tmp_path / 'tiny.pth')
    with pytest.raises(ValueError, match=r'tiny\.pth does not fit PVT:\n\tMissing.*"block1\.2\.norm1\.weight"'):
        load_backbone(PVT('small'), tmp_path / 'tiny.pth')


def test_parts_deep_in_other_modules_are_no_backbone():
    """A norm within a block is called as the final one is."""
    keys = [
        'net.cls_token',
        'net.blocks.0.x',
        'net.norm.weight',
        'net.blocks.0.norm.weight',
        'net.blocks.1.norm.weight',
    ]
    assert find_backbone(keys, ['cls_token', 'blocks', 'norm'], 'file') == 'net.'


def test_missing_checkpoints_say_where_they_are_asked_for(tmp_path, make_backbone):
    with pytest.raises(
        FileNotFoundError, match=r'no checkpoint .*/none\.pth, which an init_cfg.*train it first.*or set'
    ):
        load_backbone(make_backbone('pvt'), tmp_path / 'none.pth')


def test_addresses_are_fetched_and_read_without_executing_them(tmp_path, serve, log, make_backbone):
    source, backbone = make_backbone('pvt'), make_backbone('pvt')
    torch.save({'state_dict': source.state_dict(), 'evil': TouchOnLoad(tmp_path / 'touched')}, tmp_path / 'pvt.pth')
    load_backbone(backbone, f'{serve}/pvt.pth')
    check_loaded(backbone, source.state_dict())
    assert not (tmp_path / 'touched').exists()
    assert log[0].startswith(f'{serve}/pvt.pth: loaded 123 of 123 tensors into PVT; left out: nothing')
    with pytest.raises(OSError, match=r'/none\.pth of init_cfg cannot be fetched: .*404'):
        load_backbone(backbone, f'{serve}/none.pth')
    (tmp_path / 'page.pth').write_text('<html>')
    with pytest.raises(ValueError, match=rf'{serve}/page\.pth: .*cannot be read as a checkpoint'):
        load_backbone(backbone, f'{serve}/page.pth')
    with pytest.raises(ValueError, match=r'nowhere://pvt of init_cfg: mmengine\.fileio has no backend for nowhere://'):
        load_backbone(backbone, 'nowhere://pvt')


@pytest.mark.parametrize('type', ['Pretrained', PretrainedInit])
@pytest.mark.parametrize('listed', [False, True])
def test_init_cfg_loads_strictly_and_is_told_in_the_initialisation_log(
    tmp_path, monkeypatch, make_backbone, type, listed
):
    """Whatever else the list says comes before; the setting stays as it was written."""
    told = {}
    monkeypatch.setattr(
        BaseModule,
        '_dump_init_info',
        lambda self: told.update({name: self._params_init_info[p]['init_info'] for name, p in self.named_parameters()}),
    )
    source, path = make_backbone('pvt'), str(tmp_path / 'pvt.pth')
    torch.save(source.state_dict(), path)
    cfg = dict(type=type, checkpoint=path)
    cfg = [cfg, dict(type='Constant', layer='Linear', val=3.0)] if listed else cfg
    backbone = make_backbone('pvt', init_cfg=cfg)
    backbone.init_weights()
    check_loaded(backbone, source.state_dict())
    assert backbone.is_init
    assert backbone.init_cfg == cfg
    assert not hasattr(backbone, '_params_init_info')
    assert set(told) == set(source.state_dict())
    assert set(told.values()) == {f'BackboneInit: load from {path}'}
    # A second call changes nothing, as everywhere in mmengine.
    Path(path).unlink()
    backbone.init_weights()
    check_loaded(backbone, source.state_dict())


def test_init_cfg_takes_a_prefix(tmp_path, make_backbone):
    source = make_backbone('pvt')
    weights = {f'{of}.{name}': value for of in ('student', 'teacher') for name, value in source.state_dict().items()}
    torch.save(weights, tmp_path / 'two.pth')
    cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'two.pth'), map_location='cpu')
    with pytest.raises(ValueError, match='has 2 backbones'):
        make_backbone('pvt', init_cfg=cfg).init_weights()
    backbone = make_backbone('pvt', init_cfg=cfg | dict(prefix='teacher'))
    backbone.init_weights()
    check_loaded(backbone, source.state_dict())


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(), 'needs the path of a checkpoint, but got None'),
        (dict(checkpoint=''), "needs the path of a checkpoint, but got ''"),
        (dict(checkpoint='a.pth', strict=False), 'loads strictly here, but got strict=False'),
        (dict(checkpoint='a.pth', revise_keys=()), r"takes checkpoint and prefix, but got \['revise_keys'\]"),
    ],
)
def test_bad_init_cfgs_are_errors(make_backbone, settings, message):
    with pytest.raises(ValueError, match=message):
        make_backbone('pvt', init_cfg=dict(type='Pretrained', **settings)).init_weights()
