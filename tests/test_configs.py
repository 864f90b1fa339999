"""Every config of classification builds, groups its parameters as published and takes a training step.

Those of detection and segmentation: ``test_dense_configs.py``.
"""

import copy
import functools
import inspect
import math
import pickle
import re
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import PARAM_SCHEDULERS, init_default_scope
from mmpretrain.registry import DATASETS, HOOKS, TRANSFORMS
from mmpretrain.structures import DataSample

from smmix_mm.datasets.layout import check_data_layout
from smmix_mm.datasets.synset_folders import read_labels
from smmix_mm.mixing import RandomMixing, Unmixed
from smmix_mm.registry import BATCH_AUGMENTS, MODELS

ROOT = Path(__file__).resolve().parents[1]
ALL_CONFIGS = sorted((ROOT / 'configs').glob('[!_]*/*.py'))
TRANSFER = ('mask_rcnn', 'retinanet', 'sem_fpn')
# Runs of which no paper has a figure: convolutional networks, and the transfer of others than PVT. See
# tests/test_unpublished_configs.py. And those of data of the user's own: see tests/test_datasets/test_own_data.py.
UNPUBLISHED = [
    path
    for path in ALL_CONFIGS
    if re.search('resnet|convnext', path.stem)
    or (path.parent.name in TRANSFER and 'pvt' not in path.stem)
    or path.parent.name == 'own_data'
]
# The demo's data are not published, its models neither.
PUBLISHED = [path for path in ALL_CONFIGS if 'digit-scenes' not in path.stem and path not in UNPUBLISHED]

# The SMMix paper's tables, as far as they hold a figure. CutMix of Table 2 is that of Table 1.
DEIT = ('deit-tiny', 'deit-small', 'deit-base')
CAIT = ('cait-xxs24', 'cait-xxs36')
PVT = ('pvt-tiny', 'pvt-small', 'pvt-medium', 'pvt-large')
TABLE_1 = {
    'cutmix': (*DEIT, *CAIT, *PVT, 'swin-tiny'),
    'transmix': (*DEIT, 'cait-xxs36', *PVT),
    'tokenmix': (*DEIT, 'cait-xxs24', 'pvt-tiny', 'swin-tiny'),
    'smmix': (*DEIT, *CAIT, *PVT, 'swin-tiny'),
}
TABLE_2 = dict.fromkeys(
    ('unmixed', 'attentivemix', 'saliencymix', 'puzzlemix', 'fmix', 'resizemix', 'automix'), ('deit-small', 'swin-tiny')
)
# GPUs, images on each, and epochs; of DeiT with the released codes of two methods.
RUN, RUNS = '8xb128-300e', {'transmix': '8xb32-310e', 'tokenmix': '8xb128-310e'}
# What a variant changes of SMMix. Rows that are the method itself, or CutMix, are in Table 1.
TABLES_6_TO_9 = {
    'deit-small_smmix-transmix-labels': {'label_reconstruction': 'transmix'},
    'deit-small_smmix-tokenmix-labels': {'label_reconstruction': 'tokenmix', 'motivated_by': 'model'},
    'deit-small_smmix-mixing-only': {'loss.fine_weight': 0.0, 'loss.con_weight': 0.0},
    'deit-small_smmix-consistency-only': {'placement': 'cutmix', 'loss.fine_weight': 0.0},
    'deit-small_smmix-mixing-fine': {'loss.con_weight': 0.0},
    'deit-small_smmix-mixing-consistency': {'loss.fine_weight': 0.0},
    'deit-small_smmix-half-side': {'side_ratio': 0.5},
    'deit-small_smmix-any-side': {'side_ratio': (0.0, 1.0)},
    'deit-tiny_smmix-by-deit-tiny': {'motivated_by': 'teacher'},
    'deit-tiny_smmix-by-deit-small': {'motivated_by': 'teacher'},
}
VARIANTS = {**TABLES_6_TO_9, 'deit-small_smmix-half-motivation': {'motivation_scale': 0.5}}

# Small data: by method, the models at 224 x 224 and at 32 x 32.
LARGE, SMALL = ('deit-small', 'swin-tiny'), ('vit-cifar', 'pvt-cifar')
CIFAR = {
    **dict.fromkeys(('cutmix', 'transmix', 'tokenmix', 'smmix', 'automix'), (LARGE, SMALL)),
    'unmixed': ((), SMALL),
}

METHODS = {*TABLE_1, *TABLE_2}
CONFIGS = [path for path in ALL_CONFIGS if path.parent.name in METHODS and path not in UNPUBLISHED]
IMAGENET = [path for path in CONFIGS if path.stem.endswith('in1k')]
SMALL_DATA = [path for path in CONFIGS if 'cifar1' in path.stem]
FOLDERS = [path for path in ALL_CONFIGS if path.parent.name == 'cifar_folders' and path not in UNPUBLISHED]

# Sizes as published, heads included, what only training uses left out.
PARAMETERS = {
    'deit-tiny': 5_717_416,
    'deit-small': 22_050_664,
    'deit-base': 86_567_656,
    'cait-xxs24': 11_956_264,
    'cait-xxs36': 17_299_720,
    'pvt-tiny': 13_229_288,
    'pvt-small': 24_485_864,
    'pvt-medium': 44_208_104,
    'pvt-large': 61_369_320,
    'swin-tiny': 28_288_354,
}
# By the names of the metafiles, the files of their data.
OUT_OF_DISTRIBUTION = {
    f'ImageNet-{name}': ROOT / f'configs/_base_/datasets/imagenet_{name.lower()}_bs128_224.py'
    for name in ('A', 'R', 'Sketch', 'Stylized')
}
DROP_PATH = {'cait-xxs24': 0.05, 'pvt-medium': 0.3, 'pvt-large': 0.3, 'swin-tiny': 0.2}
CLIP = {'pvt-medium': 1.0, 'pvt-large': 1.0, 'swin-tiny': 5.0}
# Weight decay where it is not 0.05, and runs whose optimiser is not that of CutMix.
DECAY = {
    ('deit-tiny', 'transmix'): 0.03,
    ('deit-small', 'transmix'): 0.03,
    ('deit-base', 'transmix'): 0.05,
    ('deit-small', 'tokenmix'): 0.05,
    ('deit-small', 'fmix'): 0.05,
    ('swin-tiny', 'fmix'): 0.05,
    ('deit-small', 'automix'): 0.05,
    ('swin-tiny', 'automix'): 0.05,
}


@functools.cache
def _read(path: Path) -> Config:
    return Config.fromfile(path)


def load(path: Path) -> Config:
    return copy.deepcopy(_read(path))


def parts_of(path: Path) -> tuple[str, str, str]:
    """Model, method with variant, and the run with its data."""
    model, method, run = path.stem.split('_', 2)
    return model, method, run


def combination_of(path: Path) -> tuple[str, str]:
    """What decides which code runs: the family of the backbone, and the method with its variant."""
    family = {'deit': 'vit'}.get(path.stem.split('-')[0], path.stem.split('-')[0])
    return family, parts_of(path)[1]


def _fast_configs() -> set[Path]:
    """One of each method, and SMMix on each family, of those that run in least time: the smallest models, on ImageNet.

    tests/test_mixing/test_combinations.py has every method on every family.
    """
    fast = {}
    for path in sorted(CONFIGS, key=lambda path: ('in1k' not in path.stem, 'tiny' not in path.stem)):
        family, method = combination_of(path)
        if family == 'vit' or method == 'smmix':
            fast.setdefault((family, method), path)
    return set(fast.values())


FAST = _fast_configs()
every_config = pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
every_imagenet_config = pytest.mark.parametrize('path', IMAGENET, ids=lambda path: path.stem)
every_config_in_time = pytest.mark.parametrize(
    'path',
    [pytest.param(path, id=path.stem, marks=[] if path in FAST else pytest.mark.slow) for path in CONFIGS],
)


def build_model(cfg: Config) -> torch.nn.Module:
    """As mmengine's runner does: a ``data_preprocessor`` of the config goes to a model that has none of its own."""
    settings = dict(cfg.model)
    if 'data_preprocessor' in cfg:
        settings.setdefault('data_preprocessor', dict(cfg.data_preprocessor))
    return MODELS.build(settings)


def count_parameters(model: torch.nn.Module) -> int:
    return sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if not name.startswith(('region_head.', 'mixing.'))
    )


@pytest.fixture(scope='module')
def give_weights(tmp_path_factory):
    """Writes a checkpoint of random weights to where the teacher of a config is read from."""
    checkpoints = {}

    def give(cfg):
        teacher = cfg.model.get('teacher')
        if teacher is None:
            return cfg
        parts = {key: value for key, value in teacher.items() if key != 'init_cfg'}
        if str(parts) not in checkpoints:
            path = tmp_path_factory.mktemp('teacher') / 'epoch_300.pth'
            torch.save(dict(state_dict=MODELS.build(copy.deepcopy(parts)).state_dict()), path)
            checkpoints[str(parts)] = str(path)
        teacher.init_cfg.checkpoint = checkpoints[str(parts)]
        return cfg

    return give


def flatten(value: object, name: str = '') -> dict[str, object]:
    """Settings by their dotted names."""
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        return {name: value}
    return {
        key: leaf
        for step, inner in items
        for key, leaf in flatten(inner, f'{name}.{step}' if name else str(step)).items()
    }


def differences(one: object, other: object) -> set[str]:
    absent = object()
    one, other = flatten(one), flatten(other)
    return {name for name in {*one, *other} if one.get(name, absent) != other.get(name, absent)}


def test_tables_1_and_2_have_a_config_for_each_figure():
    expected = {
        f'{model}_{method}_{RUNS.get(method, RUN) if model in DEIT else RUN}_in1k'
        for table in (TABLE_1, TABLE_2)
        for method, models in table.items()
        for model in models
    }
    assert {path.stem for path in IMAGENET if '-' not in parts_of(path)[1]} == expected


def test_tables_6_to_9_have_a_config_for_each_figure():
    expected = {f'{name}_8xb128-300e_in1k' for name in VARIANTS}
    assert {path.stem for path in IMAGENET if '-' in parts_of(path)[1]} == expected


@pytest.mark.parametrize('data', ['cifar10', 'cifar100'])
def test_small_data_have_a_config_for_each_model_and_method(data):
    expected = {
        f'{model}_{method}_1xb100-200e_{data}{form}'
        for method, forms in CIFAR.items()
        for form, models in zip(('-224', ''), forms, strict=True)
        for model in models
    }
    assert {path.stem for path in SMALL_DATA if f'{data}' in path.stem.replace('-', '_').split('_')} == expected
    expected = {f'{model}_1xb100-200e_{data}-folders' for model in SMALL}
    assert {path.stem for path in FOLDERS if f'{data}-' in path.stem} == expected


def test_the_demo_has_both_of_its_models():
    names = {path.stem for path in CONFIGS} - {path.stem for path in [*IMAGENET, *SMALL_DATA]}
    assert names == {
        f'{model}_{method}_1xb32-8e_digit-scenes'
        for model in ('pvt-mini', 'vit-mini')
        for method in ('cutmix', 'smmix')
    } | {f'pvt-mini_{method}_1xb32-64e_digit-scenes-1000' for method in ('cutmix', 'smmix')}


def test_a_step_of_every_method_and_family_is_fast():
    """And slow tests take one of all others."""
    assert len(FAST) < len(CONFIGS)
    for fast, every in zip(*(zip(*map(combination_of, paths), strict=True) for paths in (FAST, CONFIGS)), strict=True):
        assert set(fast) == set(every)


def image_size(path: Path) -> int:
    """The smallest that model and method take, among sizes that are like their own."""
    model, method, run = parts_of(path)
    if model == 'swin-tiny':
        return 224
    if 'cifar' in run and not run.endswith('-224'):
        return 32
    # TokenMix needs more than 28 patches.
    return 128 if method == 'tokenmix' else 64


@every_config_in_time
def test_one_training_step(path, give_weights, enter_run):
    enter_run(seed=0, iteration=0)
    cfg = give_weights(load(path))
    # No block may be dropped for both images, or it gets no gradient.
    if 'drop_path_rate' in cfg.model.backbone:
        cfg.model.backbone.drop_path_rate = 0.0
    if 'layer_scale_init_value' in cfg.model.backbone:
        # As published, the first gradients behind it are lost beside AdamW's eps.
        cfg.model.backbone.layer_scale_init_value = 0.1
    model = build_model(cfg).train()
    if 'teacher' in cfg.model:
        model.init_weights()
    cfg.optim_wrapper.type = 'OptimWrapper'
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    before = {name: parameter.detach().clone() for name, parameter in trained.items()}
    classes, size = cfg.model.head.num_classes, image_size(path)
    data = dict(
        inputs=torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8),
        data_samples=[DataSample().set_gt_label(label) for label in (1, classes - 1)],
    )
    # One step of each method in the list; at full size, which takes long, Mixup's is left to CutMix's config.
    reported = {}
    for index, augment in enumerate(cfg.model.train_cfg.augments or [dict(type='Unmixed')]):
        if size == 224 and augment['type'].endswith('Mixup') and path.parent.name != 'cutmix':
            continue
        model.mixing.probs = [float(index == other) for other in range(len(model.mixing.methods))]
        reported[augment['type'].split('.')[-1]] = model.train_step(data, wrapper)
    for logs in reported.values():
        assert {'loss', 'loss_cls'} <= set(logs)
        assert all(value.isfinite() for value in logs.values())
    if 'SMMix' in reported:
        loss = cfg.model.train_cfg.augments[1].loss
        assert ('loss_fine' in reported['SMMix']) == (loss.fine_weight > 0)
        assert ('loss_con' in reported['SMMix']) == (loss.con_weight > 0)
    for name, parameter in trained.items():
        assert parameter.isfinite().all(), name
        # A constant on all scores of a head, which its softmax does not see.
        if name.endswith('proj_l.bias'):
            continue
        assert not parameter.equal(before[name]), f'{name} was not trained'
    if model.teacher is not None:
        assert not any(name.startswith('teacher') for name in model.state_dict())


def decay_by_parameter(model: torch.nn.Module, cfg: Config) -> dict[str, float]:
    cfg.optim_wrapper.type = 'OptimWrapper'
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    decay = {
        id(parameter): group['weight_decay']
        for group in wrapper.optimizer.param_groups
        for parameter in group['params']
    }
    return {name: decay[id(parameter)] for name, parameter in model.named_parameters() if parameter.requires_grad}


# All others have the optimiser of one of these, see test_runs_of_a_recipe_differ_in_the_mixing_alone.
DECAYS = [
    path for path in CONFIGS if path.parent.name == 'cutmix' or (path in IMAGENET and parts_of(path)[:2] in DECAY)
]


@pytest.mark.parametrize('path', DECAYS, ids=lambda path: path.stem)
def test_parameters_and_their_decay(path):
    """No decay on one-dimensional parameters and class token; DeiT none on position embeddings, Swin none on bias."""
    cfg = load(path)
    model = build_model(cfg)
    decay = decay_by_parameter(model, cfg)
    name, method, _ = parts_of(path)
    free = {
        'deit': ['cls_token', 'pos_embed'],
        'vit': ['cls_token', 'pos_embed'],
        'swin': ['relative_position_bias_table'],
    }.get(name.split('-')[0], ['cls_token'])
    expected = DECAY.get((name, method), 0.05) if path in IMAGENET else 0.05
    for key, parameter in model.named_parameters():
        exempt = parameter.ndim == 1 or any(part in key for part in free)
        # A momentum model is not trained.
        assert decay.get(key) == ((0.0 if exempt else expected) if parameter.requires_grad else None), key
    if path in IMAGENET:
        assert count_parameters(model) == PARAMETERS[name]


@dataclass(frozen=True)
class Recipe:
    """What a published figure was trained by, as far as a config says it; defaults: the released SMMix code."""

    batch: int = 1024
    epochs: int = 300
    weight_decay: float = 0.05
    warm_up: int = 5
    clip: float | None = None
    drop_path: float = 0.1
    erasing: float = 0.0
    ema: bool = False
    by_iteration: bool = False
    augmented_first: bool = False
    interpolation: str = 'bicubic'
    test_edge: int = 256


def recipe_of(path: Path) -> Recipe:
    """docs/recipes.md."""
    name, method, _ = parts_of(path)
    if method in TABLE_2:
        recipe = Recipe(clip=5.0, erasing=0.25, warm_up=20, by_iteration=True)
        if name == 'swin-tiny':
            return replace(recipe, drop_path=0.2)
        return replace(recipe, warm_up=5) if method == 'automix' else replace(recipe, drop_path=0.0)
    if name in DEIT and method == 'transmix':
        recipe = Recipe(batch=256, epochs=310, ema=True, interpolation='random', test_edge=248)
        return recipe if name == 'deit-base' else replace(recipe, weight_decay=0.03, warm_up=20)
    if name in DEIT and method == 'tokenmix':
        return Recipe(epochs=310, erasing=0.25, ema=True, augmented_first=True)
    if name == 'swin-tiny':
        return Recipe(clip=5.0, erasing=0.25, warm_up=20, drop_path=0.2)
    return Recipe(clip=CLIP.get(name), drop_path=DROP_PATH.get(name, 0.1))


def crops_of(pipeline: list) -> list:
    """The random crop of a pipeline, or those that it chooses from."""
    found = []
    for step in pipeline:
        choices = [inner for steps in step.get('transforms', []) for inner in steps]
        found += [crop for crop in (step, *choices) if crop.type.endswith('RandomResizedCrop')]
    return found


@every_imagenet_config
def test_recipe(path):
    """The values of the recipe that the published figure had, read off the merged config."""
    cfg, recipe = load(path), recipe_of(path)
    gpus, images = map(int, re.match(r'(\d+)xb(\d+)-', parts_of(path)[2]).groups())
    assert gpus * images == recipe.batch == cfg.auto_scale_lr.base_batch_size
    assert cfg.train_dataloader.batch_size == images
    assert cfg.train_dataloader.sampler.type == 'DefaultSampler'
    assert f'-{cfg.train_cfg.max_epochs}e_' in path.stem
    assert cfg.train_cfg.max_epochs == recipe.epochs
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', 1e-3, recipe.weight_decay)
    assert (optimizer.betas, optimizer.eps) == ((0.9, 0.999), 1e-8)
    assert cfg.optim_wrapper.clip_grad == (None if recipe.clip is None else dict(max_norm=recipe.clip))
    warm_up, cosine = cfg.param_scheduler
    assert warm_up.end == cosine.begin == recipe.warm_up
    assert (cosine.end, cosine.eta_min) == (300, 1e-5)
    assert cosine.get('convert_to_iter_based', False) == recipe.by_iteration
    assert cfg.model.backbone.drop_path_rate == recipe.drop_path
    assert cfg.model.backbone.get('layer_scale_init_value') == (1e-5 if parts_of(path)[0] in CAIT else None)
    assert cfg.model.head.loss.label_smooth_val == 0.1
    assert cfg.train_pipeline == cfg.train_dataloader.dataset.pipeline
    assert cfg.test_pipeline == cfg.val_dataloader.dataset.pipeline == cfg.test_dataloader.dataset.pipeline
    kinds = [step.type.split('.')[-1] for step in cfg.train_pipeline]
    assert (kinds.index('RandAugment') == 1) == recipe.augmented_first
    interpolations = ['bicubic', 'bilinear'] if recipe.interpolation == 'random' else [recipe.interpolation]
    assert [crop.interpolation for crop in crops_of(cfg.train_pipeline)] == interpolations
    assert {crop.scale for crop in crops_of(cfg.train_pipeline)} == {224}
    assert [step.scale for step in cfg.test_pipeline if step.type.endswith('ResizeEdge')] == [recipe.test_edge]


@functools.cache
def erased_part(erase_prob: float, draws: int = 4000) -> float:
    """Of how many images something is erased."""
    cfg = load(ROOT / 'configs/_base_/datasets/imagenet_bs128_224.py')
    erase = TRANSFORMS.build(dict(erasing_of(cfg), erase_prob=erase_prob))
    np.random.seed(0)
    image = np.full((24, 24, 3), 255, dtype=np.uint8)
    return np.mean([(erase(dict(img=image.copy()))['img'] != 255).any() for _ in range(draws)])


def erasing_of(cfg: Config) -> Config:
    (erasing,) = [step for step in cfg.train_pipeline if step.type.endswith('RandomErasing')]
    return erasing


@every_imagenet_config
def test_images_are_erased_as_often_as_published(path):
    """By counting. Area and noise are those of test_rivals.py: nothing but the probability is set anywhere else."""
    erasing = erasing_of(load(path))
    tested = erasing_of(load(ROOT / 'configs/_base_/datasets/imagenet_bs128_224_erasing.py'))
    assert differences(erasing.to_dict(), tested.to_dict()) <= {'erase_prob'}
    wanted = recipe_of(path).erasing
    # Within four standard deviations.
    assert erased_part(erasing.erase_prob) == pytest.approx(wanted, abs=4 * math.sqrt(wanted * (1 - wanted) / 4000))


@every_imagenet_config
def test_weights_are_averaged_where_the_figure_is_of_averaged_weights(path):
    """timm's decay of 0.99996; TokenMix scores the trained weights too."""
    cfg, recipe = load(path), recipe_of(path)
    hooks = [HOOKS.build({key: value for key, value in hook.items() if key != 'priority'}) for hook in cfg.custom_hooks]
    assert [type(hook).__name__ for hook in hooks] == ['EMAHook'] * recipe.ema
    for hook in hooks:
        average = MMENGINE_MODELS.build(hook.ema_cfg, default_args=dict(model=torch.nn.Linear(1, 1)))
        assert 1 - average.momentum == pytest.approx(0.99996)
        assert hook.evaluate_on_ema
        assert hook.evaluate_on_origin == (parts_of(path)[1] == 'tokenmix')


# DeiT-B of TransMix has another probability in force; the benchmark runs each method by itself.
def probability_of(path: Path) -> float | None:
    """Of the method that a config is about."""
    name, method, run = parts_of(path)
    if path.parent.name == 'unmixed':
        return None
    if path.parent.name in TABLE_2:
        return 1.0
    return 0.8 if (name, method) == ('deit-base', 'transmix') and run.endswith('in1k') else 0.5


@functools.cache
def drawn_parts(probs: tuple[float, ...], steps: int = 3000) -> list[float]:
    """In which parts of the steps each method is drawn; last, none."""
    mixing = RandomMixing([Unmixed() for _ in probs], probs)
    methods = list(mixing.methods)
    drawn = [methods.index(mixing.draw()[0]) for _ in range(steps)]
    return (np.bincount(drawn, minlength=len(methods)) / steps).tolist()


@every_config
def test_mixing(path):
    """CutMix and what replaces it in part of the steps, Mixup in the others; the benchmark's methods by themselves."""
    cfg = load(path)
    assert cfg.model.train_cfg == cfg.mixing
    assert cfg.mixing.same_on_all_ranks
    wanted = probability_of(path)
    if wanted is None:
        assert (cfg.mixing.augments, cfg.mixing.probs) == ([], None)
        return
    *others, method = cfg.mixing.augments
    assert others == ([dict(type='mmpretrain.Mixup', alpha=0.8)] if wanted < 1 else [])
    # Within four standard deviations, by counting.
    *rest, part, unmixed = drawn_parts(tuple(cfg.mixing.probs))
    assert part == pytest.approx(wanted, abs=4 * math.sqrt(wanted * (1 - wanted) / 3000))
    assert sum(rest) == pytest.approx(1 - part)
    assert unmixed == 0
    assert method.type.split('.')[-1].lower() == path.parent.name


@pytest.mark.parametrize('path', sorted((ROOT / 'configs/_base_/methods').glob('*.py')), ids=lambda path: path.stem)
def test_a_method_writes_out_all_its_settings(path):
    cfg = Config.fromfile(path)
    assert set(cfg) <= {'mixing', 'criterion', 'mix_block_keys'}
    assert set(cfg.mixing) == {'augments', 'probs', 'same_on_all_ranks'}
    for augment in cfg.mixing.augments:
        kind = BATCH_AUGMENTS.get(augment.type)
        if not augment.type.startswith('smmix_mm.'):
            continue
        for name, parameter in inspect.signature(kind).parameters.items():
            # A part's default is to be found in its own class.
            settings, defaults = augment[name], parameter.default
            if isinstance(settings, dict):
                part = inspect.signature(MODELS.get(settings.type)).parameters
                settings = {key: value for key, value in settings.items() if key != 'type'}
                defaults = {key: value.default for key, value in part.items() if value.default is not inspect._empty}
            if f'{kind.__name__}.{name}' in OF_THE_FIGURE:
                assert settings != defaults
                settings = defaults if settings == OF_THE_FIGURE[f'{kind.__name__}.{name}'] else settings
            assert settings == defaults, name


# Settings of the quoted figures that are not the method's own defaults.
OF_THE_FIGURE = {'FMix.alpha': 0.2, 'SaliencyMix.alpha': 0.2}


def run_of_the_same_recipe(path: Path) -> Path:
    """Another method's run, by which a run is measured: CutMix's, or the unmixed one of the benchmark of Table 2."""
    model, _, run = parts_of(path)
    method = 'unmixed' if path in IMAGENET and path.parent.name in TABLE_2 else 'cutmix'
    return ROOT / f'configs/{method}/{model}_{method}_{run}.py'


# DeiT with the released codes of two methods: their values are those of test_recipe.
OF_ANOTHER_RECIPE = [path for path in IMAGENET if parts_of(path)[0] in DEIT and path.parent.name in RUNS]


@pytest.mark.parametrize(
    'path', [path for path in CONFIGS if path not in OF_ANOTHER_RECIPE], ids=lambda path: path.stem
)
def test_runs_of_a_recipe_differ_in_the_mixing_alone(path):
    """And in what a method needs."""
    model, method, _ = parts_of(path)
    differ = {
        name
        for name in differences(load(path).to_dict(), load(run_of_the_same_recipe(path)).to_dict())
        if not name.startswith(('mixing.', 'model.train_cfg.', 'mix_block_keys.'))
    }
    asks_teacher = {name for name in differ if name.startswith(('teacher.', 'model.teacher.'))}
    has_teacher = method in ('tokenmix', 'attentivemix') or 'by-deit' in method or method == 'smmix-tokenmix-labels'
    assert bool(asks_teacher) == has_teacher
    expected = set()
    if method == 'tokenmix':
        expected |= {'criterion.use_sigmoid', 'model.head.loss.use_sigmoid', 'model.head.loss.loss_weight'}
    if method == 'automix' and path in IMAGENET:
        keys = flatten(load(path).mix_block_keys.to_dict())
        expected |= {f'optim_wrapper.paramwise_cfg.custom_keys.{key}' for key in keys} | {'param_scheduler.1.type'}
        if model == 'deit-small':
            expected |= {'model.backbone.drop_path_rate', 'param_scheduler.0.end', 'param_scheduler.1.begin'}
    assert differ - asks_teacher - {'mixing', 'model.train_cfg'} == expected


@pytest.mark.parametrize('path', OF_ANOTHER_RECIPE, ids=lambda path: path.stem)
def test_sizes_of_deit_share_the_recipe_of_a_released_code(path):
    model, method, _ = parts_of(path)
    small = load(path.with_stem(path.stem.replace(model, 'deit-small')))
    expected = set() if model == 'deit-small' else {'model.backbone.arch', 'model.head.in_channels'}
    if (model, method) == ('deit-base', 'transmix'):
        probabilities = {f'{probs}.{index}' for probs in ('mixing.probs', 'model.train_cfg.probs') for index in (0, 1)}
        expected |= {'optim_wrapper.optimizer.weight_decay', 'param_scheduler.0.end', 'param_scheduler.1.begin'}
        expected |= probabilities
    assert differences(load(path).to_dict(), small.to_dict()) == expected


@pytest.mark.parametrize('name', VARIANTS)
def test_variants_differ_from_smmix_in_what_they_are_about(name):
    model = name.split('_')[0]
    settings = {}
    for stem in (name, f'{model}_smmix'):
        mixing = load(ROOT / f'configs/smmix/{stem}_8xb128-300e_in1k.py').mixing.to_dict()
        settings[stem] = flatten(mixing.pop('augments')[1]), mixing
    (variant, rest), (stock, stock_rest) = settings.values()
    assert rest == stock_rest
    assert {key: value for key, value in variant.items() if value != stock[key]} == VARIANTS[name]


# The methods that look at images with a teacher; AttentiveMix and the variants have one on ImageNet.
TAUGHT = [path for path in CONFIGS if re.search('_(tokenmix|attentivemix|smmix-tokenmix|smmix-by)', path.stem)]


def test_who_has_a_teacher():
    assert [path for path in CONFIGS if 'teacher' in load(path).model] == TAUGHT


@pytest.mark.parametrize('path', TAUGHT, ids=lambda path: path.stem)
def test_a_teacher_is_a_run_of_ours(path):
    """It is read from where its config leaves it, and built as that config builds it."""
    cfg = load(path)
    teacher = cfg.model.teacher
    checkpoint = Path(teacher.init_cfg.checkpoint)
    (source,) = [other for other in CONFIGS if other.stem == checkpoint.parent.name]
    trained = load(source)
    assert source.parent.name == 'cutmix'
    assert checkpoint == Path('work_dirs', source.stem, f'epoch_{trained.train_cfg.max_epochs}.pth')
    assert teacher.type == 'mmpretrain.ImageClassifier'
    states = [
        {key: value.shape for key, value in MODELS.build(parts).state_dict().items()}
        for parts in (
            {key: value for key, value in teacher.items() if key != 'init_cfg'},
            {key: value for key, value in trained.model.items() if key not in ('train_cfg', 'published_init')}
            | dict(type='mmpretrain.ImageClassifier'),
        )
    ]
    assert states[0] == states[1]
    assert teacher.head.num_classes == cfg.model.head.num_classes


def test_tokenmix_masks_have_the_published_part_of_tokens():
    """On CIFAR's 32 x 32 pixels too; and binary cross-entropy as a mean over batch and classes."""
    for path in CONFIGS:
        if path.parent.name != 'tokenmix':
            continue
        cfg = load(path)
        method = BATCH_AUGMENTS.build(cfg.mixing.augments[1])
        size = 32 if parts_of(path)[0] in SMALL else 224
        grid = method.grid((size, size))
        assert grid == ((8, 8) if size == 32 else (14, 14))
        assert method.count(grid) / (grid[0] * grid[1]) == pytest.approx(112 / 196, abs=0.01)
        classes = cfg.model.head.num_classes
        loss = MODELS.build(cfg.model.head.loss)
        logits, labels = torch.randn(3, classes), torch.rand(3, classes)
        expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, 0.9 * labels + 0.1 / classes)
        torch.testing.assert_close(loss(logits, labels, avg_factor=3), expected)


def learning_rates(cfg: Config, epochs: int, epoch_length: int = 4) -> list[float]:
    """At the start of each epoch."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=cfg.optim_wrapper.optimizer.lr)
    schedulers = []
    for scheduler in cfg.param_scheduler:
        kind = PARAM_SCHEDULERS.get(scheduler.pop('type'))
        by_iteration = scheduler.pop('convert_to_iter_based', False)
        build = functools.partial(kind.build_iter_from_epoch, epoch_length=epoch_length) if by_iteration else kind
        schedulers.append((build(optimizer=optimizer, **scheduler), by_iteration))
    rates = []
    for _ in range(epochs):
        rates.append(optimizer.param_groups[0]['lr'])
        for _ in range(epoch_length):
            optimizer.step()
            for scheduler, by_iteration in schedulers:
                if by_iteration:
                    scheduler.step()
        for scheduler, by_iteration in schedulers:
            if not by_iteration:
                scheduler.step()
    return rates


def test_learning_rate_follows_the_released_schedule():
    """After the warm-up within a few per cent of timm's schedule, stepped once per epoch and one epoch late."""
    rates = learning_rates(load(ROOT / 'configs/smmix/deit-small_smmix_8xb128-300e_in1k.py'), 300)
    assert rates[0] == pytest.approx(1e-6)
    assert max(rates) == pytest.approx(1e-3)
    for epoch in range(6, 300):
        released = 1e-5 + (1e-3 - 1e-5) * (1 + math.cos(math.pi * (epoch - 1) / 300)) / 2
        assert rates[epoch] == pytest.approx(released, rel=0.05), epoch


@pytest.mark.parametrize('run', ['transmix/deit-small_transmix_8xb32', 'tokenmix/deit-small_tokenmix_8xb128'])
def test_the_last_ten_epochs_are_at_the_lowest_rate(run):
    rates = learning_rates(load(ROOT / f'configs/{run}-310e_in1k.py'), 310)
    assert max(rates) == pytest.approx(1e-3)
    assert rates[290] > 1.2e-5
    # mmengine's cosine ends one epoch short of its floor.
    assert rates[300:] == pytest.approx([1e-5] * 10, rel=0.005)


@pytest.mark.parametrize(('model', 'warm_up'), [('deit-small', 5), ('swin-tiny', 20)])
def test_the_mix_block_of_automix_has_a_floor_of_its_own(model, warm_up):
    """With weights and biases apart: by a schedule of each iteration, cosine from the end of the warm-up."""
    cfg = load(ROOT / f'configs/automix/{model}_automix_8xb128-300e_in1k.py')
    settings = cfg.optim_wrapper.paramwise_cfg
    net = torch.nn.ModuleDict(dict(mix_block=MODELS.build(dict(type='smmix_mm.MixBlock', in_channels=4))))
    net = torch.nn.ModuleDict(dict(mixing=net, head=torch.nn.Linear(4, 2)))
    wrapper = build_optim_wrapper(net, dict(type='OptimWrapper', optimizer=cfg.optim_wrapper.optimizer,
                                            paramwise_cfg=settings))  # fmt: skip
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    groups = {names[id(group['params'][0])]: group for group in wrapper.optimizer.param_groups}
    steps, schedulers = 4, []
    for scheduler in cfg.param_scheduler:
        kind = PARAM_SCHEDULERS.get(scheduler.pop('type'))
        assert scheduler.pop('convert_to_iter_based')
        schedulers.append(kind.build_iter_from_epoch(optimizer=wrapper, epoch_length=steps, **scheduler))
    for step in range(300 * steps):
        epoch = step / steps
        if epoch >= warm_up:
            half = (1 + math.cos(math.pi * (epoch - warm_up) / (300 - warm_up))) / 2
            for name, group in groups.items():
                floor = 1e-4 if 'mix_block' in name else 1e-5
                assert group['lr'] == pytest.approx(floor + (1e-3 - floor) * half, rel=1e-3), (name, epoch)
                assert group['weight_decay'] == (0.0 if name.endswith('bias') else 0.05)
        wrapper.optimizer.step()
        for scheduler in schedulers:
            scheduler.step()


@pytest.mark.parametrize('path', SMALL_DATA, ids=lambda path: path.stem)
def test_recipe_of_small_data(path):
    """OpenMixup's benchmark on CIFAR-100."""
    cfg = load(path)
    name, _, run = parts_of(path)
    assert (cfg.train_dataloader.batch_size, cfg.auto_scale_lr.base_batch_size) == (100, 100)
    assert cfg.train_cfg.max_epochs == 200
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.weight_decay) == ('AdamW', 0.05)
    assert optimizer.lr == (5e-4 if name == 'swin-tiny' else 1e-3)
    assert cfg.optim_wrapper.clip_grad == dict(max_norm=5.0)
    classes = 100 if 'cifar100' in run else 10
    assert cfg.model.head.num_classes == cfg.model.head.loss.num_classes == cfg.data_preprocessor.num_classes == classes
    assert ('cifar100' if classes == 100 else 'cifar10') in cfg.train_dataloader.dataset.data_root.lower()


@pytest.mark.parametrize('size', ['32', '224'])
def test_data_of_cifar_differ_in_their_classes_alone(size):
    ten, hundred = (Config.fromfile(ROOT / f'configs/_base_/datasets/cifar{n}_bs100_{size}.py') for n in (10, 100))
    names = {re.sub(r'\.\d$', '', name) for name in differences(ten.to_dict(), hundred.to_dict())}
    loaders = {
        f'{split}_dataloader.dataset.{key}' for split in ('train', 'val', 'test') for key in ('type', 'data_root')
    }
    preprocessor = {f'data_preprocessor.{key}' for key in ('num_classes', 'mean', 'std')}
    assert names == {'dataset_type', 'data_root'} | loaders | preprocessor


def test_learning_rate_on_small_data():
    rates = learning_rates(load(ROOT / 'configs/smmix/vit-cifar_smmix_1xb100-200e_cifar10.py'), 200)
    assert rates[0] == pytest.approx(1e-6)
    assert rates.index(max(rates)) == 20
    assert rates[20] == pytest.approx(1e-3)
    assert rates[110] == pytest.approx((1e-3 + 1e-5) / 2, rel=0.01)
    assert rates[-1] < 2e-5


@pytest.mark.parametrize('pipeline', ['train_pipeline', 'test_pipeline'])
@pytest.mark.parametrize('model', ['deit-small', 'swin-tiny'])
def test_imagenet_pipeline_gives_a_224_picture(model, pipeline, tmp_path):
    path = str(tmp_path / 'image.jpg')
    cv2.imwrite(path, np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8))
    cfg = load(ROOT / f'configs/smmix/{model}_smmix_8xb128-300e_in1k.py')
    packed = Compose(cfg[pipeline])(dict(img_path=path, gt_label=3))
    assert packed['inputs'].shape == (3, 224, 224)
    assert packed['inputs'].dtype == torch.uint8
    assert packed['data_samples'].gt_label.item() == 3


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """Two classes of CIFAR-10, both as it is released and as image folders: ``root, images (N, 32, 32, 3), labels``."""
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    labels = [0, 1, 0, 1, 1, 0]
    batches = tmp_path / 'released' / 'cifar-10-batches-py'
    batches.mkdir(parents=True)
    content = dict(data=images.transpose(0, 3, 1, 2).reshape(len(images), -1), labels=labels)
    for name in (*(f'data_batch_{number}' for number in range(1, 6)), 'test_batch'):
        (batches / name).write_bytes(pickle.dumps(content))
    monkeypatch.setattr(DATASETS.get('CIFAR10'), '_check_integrity', lambda dataset: True)
    for split in ('train', 'test'):
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            folder = tmp_path / 'folders' / split / ('airplane', 'automobile')[label]
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f'{index}.png'), image[..., ::-1])
    monkeypatch.setenv('DATA_ROOT', str(tmp_path / 'folders'))
    return tmp_path / 'released', images, labels


def test_both_forms_of_cifar_give_the_same_pictures(cifar):
    root, images, labels = cifar
    found = []
    for path in ('smmix/vit-cifar_smmix_1xb100-200e_cifar10', 'cifar_folders/vit-cifar_1xb100-200e_cifar10-folders'):
        cfg = Config.fromfile(ROOT / f'configs/{path}.py')
        if 'folders' not in path:
            cfg.test_dataloader.dataset.update(data_root=str(root), download=False)
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
        preprocess = MODELS.build(dict(cfg.data_preprocessor, type='mmpretrain.ClsDataPreprocessor'))
        samples = [dataset[index] for index in range(len(dataset))]
        packed = preprocess(
            dict(
                inputs=[sample['inputs'] for sample in samples],
                data_samples=[sample['data_samples'] for sample in samples],
            )
        )
        order = sorted(range(len(samples)), key=lambda index: packed['inputs'][index].sum().item())
        found.append([(packed['inputs'][index], packed['data_samples'][index].gt_label.item()) for index in order])
    mean, std = np.array(cfg.data_preprocessor.mean), np.array(cfg.data_preprocessor.std)
    expected = sorted((((image - mean) / std).transpose(2, 0, 1) for image in images), key=lambda image: image.sum())
    for (released, label), (from_folder, label_of_folder), image in zip(*found, expected, strict=True):
        assert label == label_of_folder
        assert released.equal(from_folder)
        np.testing.assert_allclose(released.numpy(), image, rtol=1e-4, atol=1e-4)
    assert sorted(labels) == sorted(label for _, label in found[0])


@pytest.mark.parametrize(
    ('model', 'form'),
    [*((model, '-224') for model in LARGE), *((model, form) for model in SMALL for form in ('', '-folders'))],
)
def test_pictures_of_cifar_are_of_the_size_the_model_is_for(model, form, cifar):
    path = 'cifar_folders/{}_1xb100-200e_cifar10{}' if form == '-folders' else 'smmix/{}_smmix_1xb100-200e_cifar10{}'
    cfg = Config.fromfile(ROOT / f'configs/{path.format(model, form)}.py')
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        if form != '-folders':
            loader.dataset.update(data_root=str(cifar[0]), download=False)
        inputs = DATASETS.build(loader.dataset)[0]['inputs']
        assert inputs.dtype == torch.uint8
        assert inputs.shape == (3, *(2 * [cfg.model.backbone.img_size]))
    if form == '-folders':
        # There are two of the ten classes.
        for settings in (cfg.model.head, cfg.model.head.loss, cfg.data_preprocessor):
            settings.num_classes = 2
    check_data_layout(cfg, ('train_dataloader', 'val_dataloader'))


@pytest.mark.parametrize('data', ['cifar10', 'cifar100'])
def test_folders_lie_where_the_environment_says(data, monkeypatch):
    path = ROOT / f'configs/cifar_folders/vit-cifar_1xb100-200e_{data}-folders.py'
    monkeypatch.delenv('DATA_ROOT', raising=False)
    loaders = ('train_dataloader', 'val_dataloader', 'test_dataloader')
    cfg = Config.fromfile(path)
    assert {cfg[loader].dataset.data_root for loader in loaders} == {f'data/{data}_folders'}
    with pytest.raises(FileNotFoundError, match=f'data/{data}_folders/train'):
        check_data_layout(cfg, loaders)
    monkeypatch.setenv('DATA_ROOT', '/elsewhere/with.dots')
    cfg = Config.fromfile(path)
    assert {cfg[loader].dataset.data_root for loader in loaders} == {'/elsewhere/with.dots'}
    assert [cfg[loader].dataset.data_prefix for loader in loaders] == ['train', 'test', 'test']


@pytest.mark.parametrize('method', CIFAR)
@pytest.mark.parametrize('path', FOLDERS, ids=lambda path: path.stem)
def test_the_environment_names_the_method_that_learns_from_folders(path, method, monkeypatch):
    """Its run is the one on mmpretrain's dataset but for the reading, and has a work directory of its own."""
    monkeypatch.delenv('METHOD', raising=False)
    assert Config.fromfile(path).mixing == load(ROOT / 'configs/smmix/pvt-cifar_smmix_1xb100-200e_cifar10.py').mixing
    monkeypatch.setenv('METHOD', method)
    cfg = Config.fromfile(path)
    model, run = path.stem.removesuffix('-folders').split('_', 1)
    assert cfg.work_dir == f'work_dirs/{model}_{method}_{run}-folders'
    differ = differences(cfg.to_dict(), load(ROOT / f'configs/{method}/{model}_{method}_{run}.py').to_dict())
    data = (
        'train_pipeline.',
        'test_pipeline.',
        *(f'{split}_dataloader.dataset.' for split in ('train', 'val', 'test')),
    )
    assert {name for name in differ if not name.startswith(data)} == {
        'work_dir',
        'dataset_type',
        'data_root',
        'data_preprocessor.to_rgb',
    }
    types = [step.type for step in cfg.train_pipeline]
    assert types == ['smmix_mm.LoadImage', 'mmpretrain.RandomCrop', 'mmpretrain.RandomFlip', 'mmpretrain.PackInputs']


def test_the_readme_names_the_teacher_from_folders(monkeypatch):
    """As the command of its README does: the weights that the CutMix run from the same folders leaves."""
    text = (ROOT / 'configs/cifar_folders/README.md').read_text()
    (option,) = re.findall(r'^ +(model\.\S+)=(\S+)$', text, re.MULTILINE)
    path = ROOT / 'configs/cifar_folders/vit-cifar_1xb100-200e_cifar10-folders.py'
    monkeypatch.setenv('METHOD', 'tokenmix')
    cfg = Config.fromfile(path)
    before = cfg.to_dict()
    cfg.merge_from_dict(dict([option]))
    assert differences(cfg.to_dict(), before) == {option[0]} == {'model.teacher.init_cfg.checkpoint'}
    monkeypatch.setenv('METHOD', 'cutmix')
    cutmix = Config.fromfile(path)
    assert option[1] == f'{cutmix.work_dir}/epoch_{cutmix.train_cfg.max_epochs}.pth'


def test_metafiles_list_every_config():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    assert {ROOT / metafile for metafile in index['Import']} == {path.parent / 'metafile.yml' for path in ALL_CONFIGS}
    listed, names = [], []
    counts = {}
    for metafile in index['Import']:
        content = yaml.safe_load((ROOT / metafile).read_text())
        collections = {collection['Name']: collection for collection in content['Collections']}
        for collection in collections.values():
            assert ROOT / collection['README'] == (ROOT / metafile).parent / 'README.md'
            assert (ROOT / collection['README']).is_file()
        for model in content['Models']:
            path = ROOT / model['Config']
            listed.append(path)
            names.append(model['Name'])
            # Dense runs have one config for all weights that a backbone starts from.
            method = re.search('-(smmix|cutmix)-pre', model['Name']) if path not in CONFIGS else None
            assert model['Name'].replace(method[0] if method else '', '') == path.stem
            source = model['Metadata'].get('Pretrained Backbone')
            assert bool(source) == bool(method)
            if method:
                assert (ROOT / f'configs/{method[1]}/{source}.py').is_file()
                assert (
                    Path(load(path).model.backbone.init_cfg.checkpoint).parent.name.replace('smmix', method[1])
                    == source
                )
            assert model['In Collection'] in collections
            assert f'({path.name})' in (path.parent / 'README.md').read_text()
            # Only those of which something is published, and the demo's models, have their size listed.
            assert ('Parameters' in model['Metadata']) == (
                path not in UNPUBLISHED and path.parent.name != 'digit_scenes'
            )
            if 'Parameters' not in model['Metadata']:
                continue
            cfg = load(path)
            init_default_scope(cfg.default_scope)
            # Those that differ in how they are trained alone are built once.
            for setting in ('train_cfg', 'teacher'):
                if path in [*CONFIGS, *FOLDERS]:
                    cfg.model.pop(setting, None)
            cfg.model.backbone.pop('init_cfg', None)
            cfg.model.backbone.pop('drop_path_rate', None)
            if path in [*CONFIGS, *FOLDERS]:
                cfg.model.head.loss = dict(type='mmpretrain.CrossEntropyLoss')
            if (key := str(cfg.model)) not in counts:
                counts[key] = count_parameters(build_model(cfg))
            assert model['Metadata']['Parameters'] == counts[key], model['Name']
    assert len(names) == len(set(names))
    assert set(listed) == set(ALL_CONFIGS)


def test_overview_shows_configs_as_they_are():
    text = (ROOT / 'configs/README.md').read_text()
    files = [path.read_text() for path in CONFIGS]
    examples = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
    assert examples
    for example in examples:
        assert any(file.endswith(example) for file in files), example
    targets = re.findall(r'\]\((?!https?://)([^)#]+)', text)
    assert {f'{path.parent.name}/README.md' for path in ALL_CONFIGS} <= set(targets)
    assert all((ROOT / 'configs' / target).exists() for target in targets)
    smmix = ROOT / 'configs/smmix/deit-small_smmix_8xb128-300e_in1k.py'
    (options,) = re.findall(r'--cfg-options (model.train_cfg.*)=', text)
    assert options in {f'model.train_cfg.{name}' for name in flatten(load(smmix).mixing.to_dict())}


def test_every_published_figure_has_its_recipe_in_the_docs():
    """In the section of its method, or of its task."""
    text = (ROOT / 'docs/recipes.md').read_text()
    sections = dict(part.split('\n', 1) for part in text.split('\n## ')[1:])
    titles = dict.fromkeys(TABLE_2, 'The other CutMix variants')
    titles |= {title.lower(): title for title in ('SMMix', 'CutMix', 'TransMix', 'TokenMix')}
    figures = 0
    for metafile in (ROOT / 'configs').glob('*/metafile.yml'):
        for model in yaml.safe_load(metafile.read_text())['Models']:
            for result in model.get('Results', []):
                folder = metafile.parent.name
                title = titles.get(folder, 'Detection and segmentation')
                title = 'CIFAR-100' if result['Dataset'] == 'CIFAR-100' else title
                # Of the same weights as that on ImageNet-1k; their table is in docs/evaluation.md.
                if result['Dataset'] in OUT_OF_DISTRIBUTION:
                    continue
                for value in result['Metrics'].values():
                    assert re.search(rf'(?<![\d.]){value}(?!\d|\.\d)', sections[title]), (model['Name'], value)
                    figures += 1
    assert figures >= 60


def test_metafiles_have_the_published_figures():
    """The same as the tables of the READMEs."""
    for method in METHODS:
        readme = (ROOT / f'configs/{method}/README.md').read_text()
        rows = [line for line in readme.splitlines() if line.startswith('| ')]
        models = yaml.safe_load((ROOT / f'configs/{method}/metafile.yml').read_text())['Models']
        for model in models:
            (row,) = [row for row in rows if f'({Path(model["Config"]).name})' in row]
            for result in model.get('Results', []):
                shown = result['Dataset'] in OUT_OF_DISTRIBUTION or f'| {result["Metrics"]["Top 1 Accuracy"]} |' in row
                assert shown, model['Name']
            if model['Name'].endswith('in1k') and ROOT / model['Config'] not in UNPUBLISHED:
                assert ('Results' in model) == ('half-motivation' not in model['Name'])


def test_figures_out_of_distribution_are_those_of_the_docs():
    """CutMix and SMMix of each model that the paper scores on other data than ImageNet-1k."""
    text = (ROOT / 'docs/evaluation.md').read_text()
    rows = dict(re.findall(r'^\| ((?:DeiT|PVT|Swin)-\w) \| (.*) \|$', text, re.MULTILINE))
    found: dict[str, list[list[float]]] = {}
    for method in ('cutmix', 'smmix'):
        for model in yaml.safe_load((ROOT / f'configs/{method}/metafile.yml').read_text())['Models']:
            figures = {result['Dataset']: result['Metrics'] for result in model.get('Results', [])}
            top1 = [figures[name]['Top 1 Accuracy'] for name in OUT_OF_DISTRIBUTION if name in figures]
            if top1:
                family, size = model['Name'].split('_')[0].split('-')
                name = {'deit': 'DeiT', 'pvt': 'PVT', 'swin': 'Swin'}[family]
                found.setdefault(f'{name}-{size[0].upper()}', []).append(top1)
    assert len(found) == 8
    assert rows == {
        name: ' | '.join(f'{cutmix} / {smmix}' for cutmix, smmix in zip(*figures, strict=True))
        for name, figures in found.items()
    }


@pytest.mark.parametrize('name', [*OUT_OF_DISTRIBUTION, 'ImageNet-C'])
def test_data_out_of_distribution_replace_the_test_set_alone(name):
    stock = load(ROOT / 'configs/_base_/datasets/imagenet_bs128_224.py')
    cfg = load(OUT_OF_DISTRIBUTION.get(name, ROOT / 'configs/_base_/datasets/imagenet_c_bs128_224.py'))
    changed = {setting.partition('.dataset.')[0] for setting in differences(cfg.to_dict(), stock.to_dict())}
    evaluator = {'test_evaluator.type'} if name in ('ImageNet-A', 'ImageNet-R') else set()
    assert changed == {'data_root', 'test_dataloader'} | evaluator
    dataset = cfg.test_dataloader.dataset
    assert dataset.type == 'smmix_mm.SynsetFolders'
    assert dataset.pipeline[0] == stock.test_pipeline[0]
    assert len(dataset.pipeline) == (2 if name == 'ImageNet-C' else 4)
    if evaluator:
        assert read_labels(dataset.subset) != read_labels()
        assert cfg.test_evaluator == dict(type='smmix_mm.SubsetAccuracy', topk=(1, 5))
    with pytest.raises(FileNotFoundError, match='SynsetFolders needs folders named by synsets'):
        DATASETS.build(dataset)
