"""Configs without a published figure: convolutional networks, and the transfer of other backbones than PVT."""

import copy
import math
from pathlib import Path

import mmdet
import mmpretrain
import pytest
import torch
from conftest import randomize
from mmengine.config import Config
from mmengine.model import PretrainedInit
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmpretrain.structures import DataSample
from test_configs import ROOT, TRANSFER, UNPUBLISHED, build_model, count_parameters
from test_dense_configs import make_batch

from smmix_mm.adapters import build_adapter
from smmix_mm.models.pretrained import StrictPretrainedInit
from smmix_mm.registry import MODELS

MMPRETRAIN_CONFIGS = Path(mmpretrain.__file__).parent / '.mim/configs'
CLASSIFIERS = [path for path in UNPUBLISHED if path.parent.name in ('smmix', 'cutmix')]
DENSE = [path for path in UNPUBLISHED if path.parent.name in TRANSFER]
# Smaller backbones of the same classes, with weights of their own, for images of 64 x 64.
SMALL = {
    'deit': dict(
        arch=dict(embed_dims=32, num_layers=4, num_heads=2, feedforward_channels=64), out_indices=[0, 1, 2, 3]
    ),
    # As published, the first gradients behind the layer scale are lost beside AdamW's eps.
    'cait': dict(
        arch=dict(embed_dims=32, depth=4, num_heads=2, mlp_ratio=2, class_depth=1), layer_scale_init_value=0.1
    ),
    'swin': dict(arch=dict(embed_dims=16, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1])),
    'resnet50': dict(depth=18, base_channels=16, stem_channels=16),
    'convnext': dict(arch=dict(depths=[1, 1, 1, 1], channels=[8, 16, 32, 64])),
}
CHANNELS = {'deit': [32] * 4, 'cait': [32] * 4, 'swin': [16, 32, 64, 128], 'resnet50': [16, 32, 64, 128]}
CHANNELS['convnext'] = [8, 16, 32, 64]
# What a backbone of maps has and a classifier has not, and the other way round.
FOR_MAPS = ('out_type', 'out_indices', 'gap_before_final_norm', 'frozen_stages', 'norm_cfg', 'norm_eval', 'init_cfg')


def stem_id(path: Path) -> str:
    return path.stem


def family_of(path: Path) -> str:
    return next(family for family in SMALL if f'_{family}' in path.stem)


def small(path: Path) -> Config:
    """The config with a small backbone, without weights to start from."""
    cfg, family = Config.fromfile(path), family_of(path)
    init_default_scope(cfg.default_scope)
    backbone = cfg.model.backbone
    backbone.pop('init_cfg')
    backbone.update(copy.deepcopy(SMALL[family]))
    backbone.drop_path_rate = 0.0
    if family in ('deit', 'cait'):
        backbone.img_size = 64
        pyramid, fpn = cfg.model.neck
        pyramid.embed_dim, fpn.in_channels = 32, CHANNELS[family]
    else:
        cfg.model.neck.in_channels = CHANNELS[family]
    if cfg.default_scope == 'mmdet':
        model = cfg.model
        (model.neck[1] if family in ('deit', 'cait') else model.neck).out_channels = 32
        model.rpn_head.update(in_channels=32, feat_channels=32)
        for part in ('bbox', 'mask'):
            model.roi_head[f'{part}_roi_extractor'].out_channels = 32
            model.roi_head[f'{part}_head'].in_channels = 32
        model.roi_head.bbox_head.fc_out_channels = 32
        model.roi_head.mask_head.update(num_convs=1, conv_out_channels=32)
        model.train_cfg.rpn_proposal.update(nms_pre=100, max_per_img=20)
    else:
        cfg.model.data_preprocessor.size = (64, 64)
    return cfg


def classifier_of(backbone: dict, family: str) -> torch.nn.Module:
    """A classifier with the same blocks, as its own config has it, and a region classifier."""
    init_default_scope('mmpretrain')
    settings = {key: value for key, value in backbone.items() if key not in FOR_MAPS}
    settings.pop('pad_small_map', None)
    dims = CHANNELS[family][-1]
    neck = None if family in ('deit', 'cait', 'convnext') else dict(type='mmpretrain.GlobalAveragePooling')
    return MODELS.build(
        dict(
            type='smmix_mm.MixingClassifier',
            backbone=dict(settings, **(dict(pad_small_map=True) if family == 'swin' else {})),
            neck=neck,
            head=dict(type='mmpretrain.LinearClsHead', num_classes=5, in_channels=dims),
            train_cfg=dict(augments=[dict(type='smmix_mm.SMMix')]),
        )
    )


def without_scope(value: object) -> object:
    """What is inherited from ``mmpretrain::`` names its scope."""
    if isinstance(value, dict):
        return {key: without_scope(item) for key, item in value.items() if key != '_scope_'}
    return [without_scope(item) for item in value] if isinstance(value, list) else value


def test_there_is_a_config_for_each_backbone():
    assert {path.stem for path in CLASSIFIERS} == {
        f'{model.format(method)}'
        for method in ('smmix', 'cutmix')
        for model in (
            'resnet50_{}_8xb32-100e_in1k',
            'convnext-tiny_{}_32xb128-300e_in1k',
            'resnet-cifar_{}_1xb100-200e_cifar10',
            'convnext-cifar_{}_1xb100-200e_cifar10',
        )
    }
    backbones = ('deit-tiny', 'deit-small', 'deit-base', 'cait-xxs24', 'cait-xxs36', 'swin-tiny', 'resnet50')
    assert {path.stem for path in DENSE} == {
        template.format(backbone)
        for template in ('mask-rcnn_{}_fpn_1x_coco', 'fpn_{}_8xb2-80k_ade20k-512x512')
        for backbone in (*backbones, 'convnext-tiny')
    }


def test_readmes_name_them():
    for path in [*UNPUBLISHED, *(ROOT / 'configs/digit_scenes').glob('*.py')]:
        assert f'({path.name})' in (path.parent / 'README.md').read_text(), path


@pytest.mark.parametrize('path', [path for path in CLASSIFIERS if 'in1k' in path.stem], ids=stem_id)
def test_imagenet_configs_are_mmpretrains_with_another_mixing(path):
    folder = 'resnet/resnet50_8xb32_in1k' if 'resnet' in path.stem else 'convnext/convnext-tiny_32xb128_in1k'
    cfg, stock = Config.fromfile(path), Config.fromfile(MMPRETRAIN_CONFIGS / f'{folder}.py')
    ours = {'model', 'mixing', 'train_cfg', 'default_hooks', 'randomness'}
    inherited, expected = (
        {key: without_scope(value) for key, value in one.to_dict().items() if key not in ours} for one in (cfg, stock)
    )
    assert inherited == expected
    assert cfg.train_cfg.max_epochs == stock.train_cfg.max_epochs
    found, expected = without_scope(cfg.model.to_dict()), stock.model.to_dict()
    assert (found.pop('type'), found.pop('published_init')) == ('smmix_mm.MixingClassifier', False)
    assert found.pop('train_cfg') == cfg.mixing.to_dict()
    expected.pop('type'), expected.pop('train_cfg', None)
    assert found == expected


@pytest.mark.parametrize('model', ['resnet-cifar', 'convnext-cifar'])
def test_runs_on_cifar_differ_in_the_mixing_alone(model):
    """And from the small ViT's in the model."""
    name = 'configs/{0}/{1}_{0}_1xb100-200e_cifar10.py'
    cutmix, smmix, vit = (
        Config.fromfile(ROOT / name.format(method, of))
        for method, of in (('cutmix', model), ('smmix', model), ('smmix', 'vit-cifar'))
    )
    for key in set(cutmix) | set(smmix):
        if key not in ('model', 'mixing'):
            assert cutmix[key] == smmix[key], key
            if key != 'optim_wrapper':
                assert smmix[key] == vit[key], key
    assert smmix.optim_wrapper.optimizer == vit.optim_wrapper.optimizer
    one, other = dict(cutmix.model), dict(smmix.model)
    assert one.pop('train_cfg') != other.pop('train_cfg')
    assert one == other
    assert one['published_init'] is False


@pytest.mark.parametrize(
    'path',
    [pytest.param(path, id=path.stem, marks=[] if 'cifar' in path.stem else pytest.mark.slow) for path in CLASSIFIERS],
)
def test_one_training_step(path, enter_run):
    enter_run(seed=0, iteration=0)
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    size = 32 if 'cifar' in path.stem else 64
    cfg.model.backbone.drop_path_rate = 0.0
    model = build_model(cfg)
    model.init_weights()
    model.train()
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    data = dict(
        inputs=torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8),
        data_samples=[DataSample().set_gt_label(label) for label in (1, 9)],
    )
    model.mixing.probs = [0.0, 1.0]
    # Norms that start at zero hide what is before them in the first step.
    for _ in range(2):
        logs = model.train_step(data, wrapper)
        assert all(value.isfinite() for value in logs.values())
    assert ('loss_fine' in logs) == (path.parent.name == 'smmix')
    unchanged = [name for name, parameter in model.named_parameters() if parameter.equal(before[name])]
    assert unchanged == []


@pytest.mark.parametrize('path', DENSE, ids=stem_id)
def test_first_weights_are_those_of_our_smmix_run(path):
    """Of the same backbone, and loaded strictly."""
    backbone = dict(Config.fromfile(path).model.backbone)
    init_cfg = backbone.pop('init_cfg')
    work_dirs, run, checkpoint = Path(init_cfg.checkpoint).parts
    pretraining = Config.fromfile(ROOT / f'configs/smmix/{run}.py')
    assert (work_dirs, checkpoint) == ('work_dirs', f'epoch_{pretraining.train_cfg.max_epochs}.pth')
    assert init_cfg.type == 'Pretrained' and init_cfg.strict is True
    trained = dict(pretraining.model.backbone)
    assert backbone.pop('type').split('.')[-1] == trained.pop('type').split('.')[-1]
    for key in ('arch', 'depth', 'img_size', 'patch_size', 'style'):
        assert backbone.get(key, trained.get(key)) == trained.get(key, backbone.get(key)), key
    assert f'_{run.partition("_")[0]}_' in path.stem


@pytest.mark.slow
@pytest.mark.parametrize('path', DENSE, ids=stem_id)
def test_every_dense_config_builds(path):
    """With as many parameters as the stock model of that backbone, where mmdet has one."""
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    cfg.model.backbone.pop('init_cfg')
    model = build_model(cfg)
    published = {
        'mask-rcnn_resnet50': 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco',
        'mask-rcnn_swin-tiny': 'swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco',
    }.get(path.stem.partition('_fpn')[0])
    if published:
        stock = Config.fromfile(Path(mmdet.__file__).parent / f'.mim/configs/{published}.py')
        stock.model.backbone.pop('init_cfg')
        assert count_parameters(model) == count_parameters(build_model(stock))


@pytest.mark.parametrize(
    'path',
    [
        # One of each family in each task.
        pytest.param(
            path, id=path.stem, marks=[] if any(kept in path.stem for kept in kept_names) else pytest.mark.slow
        )
        for kept_names in [('deit-tiny', 'cait-xxs24', 'swin-tiny', 'resnet50', 'convnext-tiny')]
        for path in DENSE
    ],
)
def test_one_dense_step(path):
    """Of a small backbone; on the CPU, where SyncBN of a single process is BatchNorm."""
    cfg = small(path)
    model = build_model(cfg)
    model.init_weights()
    model.train()
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    batch = make_batch(cfg)
    for _ in range(2):
        losses = model.train_step(batch, wrapper)
        assert all(loss.isfinite() for loss in losses.values()), losses
    unchanged = {name for name, parameter in model.named_parameters() if parameter.equal(before[name])}
    if family_of(path) == 'resnet50' and cfg.default_scope == 'mmdet':
        assert frozen and all(name.startswith(('backbone.conv1', 'backbone.bn1', 'backbone.layer1')) for name in frozen)
    # A constant on all scores of a head, which its softmax does not see.
    unseen = {name for name in unchanged if name.endswith('proj_l.bias')}
    assert {name for name in unchanged - frozen - unseen if name.startswith('backbone')} == set()


@pytest.fixture(params=list(SMALL))
def transfer(request, tmp_path):
    """Family, the backbone's config with the strict checkpoint of a classifier, and that classifier."""
    (path,) = [
        path
        for path in DENSE
        if path.parent.name == 'mask_rcnn'
        and family_of(path) == request.param
        and not any(size in path.stem for size in ('small', 'base', 'xxs36'))
    ]
    written = Config.fromfile(path).model.backbone.init_cfg
    backbone = small(path).model.backbone.to_dict()
    torch.manual_seed(0)
    classifier = randomize(classifier_of(backbone, request.param))
    classifier.eval()
    torch.save(dict(state_dict=classifier.state_dict()), tmp_path / 'epoch_1.pth')
    init_cfg = dict(written, checkpoint=str(tmp_path / 'epoch_1.pth'))
    return request.param, dict(backbone, init_cfg=init_cfg), classifier


def started(backbone: dict) -> torch.nn.Module:
    """The backbone as a detector starts it."""
    model = torch.nn.Module()
    model.backbone = MODELS.build(copy.deepcopy(backbone))
    model.backbone.init_weights()
    model.backbone.eval()
    return model.backbone


@torch.no_grad()
def test_last_map_is_that_of_the_classifier(transfer):
    """On the same picture: its tokens, after a final norm where the maps have it."""
    family, settings, classifier = transfer
    backbone, images = started(settings), torch.randn(2, 3, 64, 64)
    maps = backbone(images)
    assert [one.shape[1] for one in maps] == CHANNELS[family]
    if family == 'cait':
        seen = []
        classifier.backbone.blocks[-1].register_forward_hook(lambda module, args, output: seen.append(output))
        classifier.backbone(images)
        expected = seen[0]
    else:
        expected = build_adapter(classifier.backbone).read(images).tokens
    torch.testing.assert_close(maps[-1].flatten(2).mT, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize('size', [(64, 96), (90, 71)])
def test_any_size_of_image(transfer, size):
    family, settings, _ = transfer
    maps = started(settings)(torch.randn(1, 3, *size))
    strides = (16,) * 4 if family in ('deit', 'cait') else (4, 8, 16, 32)
    for one, stride in zip(maps, strides, strict=True):
        for found, side in zip(one.shape[2:], size, strict=True):
            assert math.floor(side / stride) <= found <= math.ceil(side / stride)


def test_one_missing_tensor_is_refused(transfer):
    """By its name; nothing is loaded in part."""
    _, settings, classifier = transfer
    weights, own = classifier.state_dict(), MODELS.build(dict(settings, init_cfg=None)).state_dict()
    name = [key for key in weights if key.removeprefix('backbone.') in own and key.endswith('weight')][-2]
    torch.save({key: value for key, value in weights.items() if key != name}, settings['init_cfg']['checkpoint'])
    with pytest.raises(ValueError, match=rf'does not fit \w+:\n.*"{name.removeprefix("backbone.")}"'):
        started(settings)


def test_one_left_over_tensor_is_refused(transfer):
    _, settings, classifier = transfer
    weights = dict(classifier.state_dict(), **{'backbone.surprise.weight': torch.zeros(1)})
    torch.save(weights, settings['init_cfg']['checkpoint'])
    with pytest.raises(ValueError, match='surprise'):
        started(settings)


def test_new_norms_are_named(transfer):
    """Without fresh=... they are missing like any other tensor."""
    family, settings, _ = transfer
    if family not in ('swin', 'convnext'):
        assert 'fresh' not in settings['init_cfg']
        settings['init_cfg']['fresh'] = ('norm0',)
        with pytest.raises(ValueError, match=r"fresh of init_cfg names \['norm0'\], but \w+ has no such parts"):
            started(settings)
        return
    del settings['init_cfg']['fresh']
    with pytest.raises(ValueError, match=r'epoch_1\.pth has no backbone with parts .*norm0, norm1, norm2, norm3'):
        started(settings)


def test_new_parts_need_strict_loading():
    backbone = MODELS.build(
        dict(type='mmpretrain.ResNet', depth=18, init_cfg=dict(type='Pretrained', checkpoint='x.pth', fresh=('bn1',)))
    )
    with pytest.raises(ValueError, match=r"fresh=\('bn1',\) of init_cfg of type 'Pretrained' needs strict=True"):
        backbone.init_weights()


def test_without_strict_mmengine_loads_as_before(tmp_path):
    """What fits."""
    settings = dict(type='mmpretrain.ResNet', depth=18, stem_channels=4, base_channels=4)
    source = MODELS.build(dict(settings))
    weights = source.state_dict()
    del weights['conv1.weight']
    torch.save(weights, tmp_path / 'partial.pth')
    backbone = MODELS.build(dict(settings, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'partial.pth'))))
    backbone.init_weights()
    loaded = backbone.state_dict()
    assert all(loaded[name].equal(value) for name, value in weights.items())
    assert not loaded['conv1.weight'].equal(source.state_dict()['conv1.weight'])


@pytest.mark.parametrize('kind', ['a list', 'a class'])
def test_strict_loading_needs_one_dict_by_name(tmp_path, kind):
    """Otherwise mmpretrain draws position embeddings and more after the loading."""
    vit = dict(type='mmpretrain.VisionTransformer', arch=SMALL['deit']['arch'], img_size=32)
    torch.save(MODELS.build(dict(vit)).state_dict(), tmp_path / 'vit.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'vit.pth'), strict=True)
    MODELS.build(dict(vit, init_cfg=init_cfg)).init_weights()
    written = [init_cfg] if kind == 'a list' else dict(init_cfg, type=StrictPretrainedInit)
    with pytest.raises(ValueError, match='strict=True needs init_cfg of VisionTransformer to be one dict'):
        MODELS.build(dict(vit, init_cfg=written)).init_weights()


def test_ours_load_strictly_by_class_too(tmp_path, pvt_arch):
    torch.save({'nonsense.weight': torch.zeros(1)}, tmp_path / 'none.pth')
    for kind in (PretrainedInit, StrictPretrainedInit):
        init_cfg = dict(type=kind, checkpoint=str(tmp_path / 'none.pth'))
        with pytest.raises(ValueError, match=r'none\.pth has no backbone'):
            MODELS.build(dict(type='smmix_mm.PVT', arch=pvt_arch, img_size=32, init_cfg=init_cfg)).init_weights()


def test_one_new_part_may_be_named_alone(transfer):
    family, settings, _ = transfer
    if family == 'resnet50':
        settings['init_cfg']['fresh'] = 'norm9'
        with pytest.raises(
            ValueError, match=r"names \['norm9'\], but ResNet has no such parts; it has conv1, bn1, layer1"
        ):
            started(settings)


@pytest.mark.parametrize('family', ['cait', 'swin', 'resnet50', 'convnext'])
def test_recomputed_blocks_give_the_same_gradients(family):
    """With ``with_cp``, which saves memory in dense tasks. DeiT's class has no such setting."""
    (path,) = [path for path in DENSE if f'mask-rcnn_{family}' in path.stem and 'xxs36' not in path.stem]
    settings, gradients = small(path).model.backbone.to_dict(), []
    for with_cp in (False, True):
        torch.manual_seed(0)
        backbone = MODELS.build(copy.deepcopy(dict(settings, with_cp=with_cp)))
        randomize(backbone).double().train()
        images = torch.rand(
            2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True
        )
        sum(one.square().mean() for one in backbone(images)).backward()
        gradients.append({name: weight.grad for name, weight in backbone.named_parameters()})
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, rtol=1e-6, atol=1e-9)
