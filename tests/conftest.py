import copy
import gc

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope
from mmpretrain.structures import DataSample
from quick_configs import make_configs_quick

from smmix_mm.registry import MODELS

torch.set_num_threads(1)
make_configs_quick()

CLASSES = 5
VIT_ARCH = dict(embed_dims=32, num_layers=3, num_heads=2, feedforward_channels=64)
PVT_ARCH = dict(
    embed_dims=[8, 16, 24, 32],
    num_heads=[1, 2, 3, 4],
    mlp_ratios=[2, 2, 2, 2],
    depths=[1, 2, 1, 2],
    sr_ratios=[4, 2, 2, 1],
    strides=[4, 2, 1, 1],
)
CAIT_ARCH = dict(embed_dims=32, depth=3, num_heads=2, mlp_ratio=2, class_depth=2)
SWIN_ARCH = dict(embed_dims=16, depths=[2, 2], num_heads=[1, 2])
# Settings for pictures of 32 x 32: the published grids are those of 224 x 224.
METHODS = dict(
    Mixup=dict(type='mmpretrain.Mixup', alpha=0.8),
    CutMix=dict(type='mmpretrain.CutMix', alpha=1.0),
    StockResizeMix=dict(type='mmpretrain.ResizeMix', alpha=1.0),
    ResizeMix=dict(type='smmix_mm.ResizeMix'),
    TransMix=dict(type='smmix_mm.TransMix'),
    TokenMix=dict(type='smmix_mm.TokenMix', patch_size=8, extra_tokens=2),
    AttentiveMix=dict(type='smmix_mm.AttentiveMix', cell_size=8),
    SaliencyMix=dict(type='smmix_mm.SaliencyMix'),
    FMix=dict(type='smmix_mm.FMix'),
    PuzzleMix=dict(type='smmix_mm.PuzzleMix'),
    AutoMix=dict(type='smmix_mm.AutoMix'),
    SMMix=dict(type='smmix_mm.SMMix'),
)
AUGMENTS = [dict(type='mmpretrain.Mixup', alpha=0.8), dict(type='smmix_mm.SMMix')]


def pytest_collection_finish():
    # What was imported stays to the end. Walking over it again and again was a quarter of the time of all tests.
    gc.freeze()


@pytest.fixture(autouse=True)
def known_state():
    """Every test starts from mmpretrain's scope, the same random state, and no run that has ended."""
    MessageHub._instance_dict.clear()
    init_default_scope('mmpretrain')
    torch.manual_seed(0)


@pytest.fixture
def enter_run():
    """Opens a run, as far as the random streams can tell: ``enter_run(seed, iteration)``; call again to step on."""
    opened = []

    def enter(seed, iteration, name=None):
        if name is not None or not opened:
            opened.append(f'test_run_{name}_{id(opened)}')
            MessageHub.get_instance(opened[-1])
        hub = MessageHub.get_current_instance()
        hub.update_info('seed', seed)
        hub.update_info('iter', iteration)

    yield enter
    for name in opened:
        MessageHub._instance_dict.pop(name)


@pytest.fixture
def vit_arch():
    return dict(VIT_ARCH)


@pytest.fixture
def pvt_arch():
    return copy.deepcopy(PVT_ARCH)


@pytest.fixture
def cait_arch():
    return dict(CAIT_ARCH)


@pytest.fixture
def swin_arch():
    return copy.deepcopy(SWIN_ARCH)


@pytest.fixture
def make_backbone():
    """Builds a tiny backbone: ``make_backbone('vit' | 'pvt' | 'cait' | 'swin', img_size=(32, 32), **settings)``.

    All families have tokens of 32 channels, in a 4 x 4 grid at 32 x 32, which is Swin's window. All weights are random,
    those that start at 0 or 1 too, and those of the attention large, so that it is far from uniform.
    """

    def make(family='vit', img_size=(32, 32), **settings):
        cfg = backbone_cfg(family, img_size, **settings)
        return randomize(MODELS.build(cfg))

    return make


@pytest.fixture
def make_classifier():
    """Builds a tiny ``MixingClassifier`` of 5 classes with random weights; by default with Mixup and SMMix."""

    def make(
        family='vit',
        img_size=(32, 32),
        augments=AUGMENTS,
        probs=None,
        backbone=None,
        head=None,
        type='smmix_mm.MixingClassifier',
        **settings,
    ):
        train_cfg = dict(augments=copy.deepcopy(augments), probs=probs)
        if type == 'smmix_mm.MixingClassifier':
            settings.setdefault('train_cfg', train_cfg)
        settings.setdefault('neck', neck_cfg(family))
        cfg = dict(
            type=type,
            backbone=backbone_cfg(family, img_size, **(backbone or {})),
            head=head or head_cfg(family),
            **settings,
        )
        return randomize(MODELS.build(cfg))

    return make


@pytest.fixture
def make_samples():
    """Data samples with one-hot labels, as the data preprocessor hands them to ``loss``."""

    def make(labels, num_classes=CLASSES):
        scores = torch.eye(num_classes)[torch.as_tensor(labels)]
        return [DataSample().set_gt_score(score) for score in scores]

    return make


def backbone_cfg(family, img_size=(32, 32), **settings):
    if family == 'vit':
        return dict(
            type='mmpretrain.VisionTransformer', arch=dict(VIT_ARCH), patch_size=8, img_size=img_size
        ) | copy.deepcopy(settings)
    if family == 'cait':
        return dict(type='smmix_mm.CaiT', arch=dict(CAIT_ARCH), patch_size=8, img_size=img_size) | copy.deepcopy(
            settings
        )
    if family == 'swin':
        return dict(
            type='mmpretrain.SwinTransformer',
            arch=copy.deepcopy(SWIN_ARCH),
            patch_size=4,
            window_size=4,
            out_indices=(1,),
            img_size=img_size,
            drop_path_rate=0.0,
        ) | copy.deepcopy(settings)
    return dict(type='smmix_mm.PVT', arch=copy.deepcopy(PVT_ARCH), img_size=img_size) | copy.deepcopy(settings)


def neck_cfg(family):
    return dict(type='mmpretrain.GlobalAveragePooling') if family == 'swin' else None


def head_cfg(family):
    return dict(
        type='mmpretrain.VisionTransformerClsHead' if family == 'vit' else 'mmpretrain.LinearClsHead',
        num_classes=CLASSES,
        in_channels=32,
        loss=dict(type='mmpretrain.LabelSmoothLoss', label_smooth_val=0.1, mode='original', num_classes=CLASSES),
    )


# Parts of the names of what decides where attention goes.
SHARP = (
    'qkv.weight',
    '.q.weight',
    '.kv.weight',
    '.k.weight',
    'proj_l',
    'bias_table',
    'pos_embed',
    'cls_token',
    'gamma_',
)


def randomize(model):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            sharp = any(part in name for part in SHARP)
            parameter.add_(torch.randn_like(parameter), alpha=0.4 if sharp else 0.1)
    return model
