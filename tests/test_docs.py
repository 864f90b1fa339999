"""What the documents say runs."""

import argparse
import copy
import itertools
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from mmengine.config import Config, DictAction
from mmengine.dataset import Compose
from mmengine.logging import MessageHub
from mmengine.registry import Registry
from mmpretrain.models import build_classifier
from mmpretrain.registry import DATASETS, HOOKS, TRANSFORMS

import smmix_mm
from smmix_mm import registry
from smmix_mm.adapters import build_adapter
from smmix_mm.registry import MODELS

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    'README.md',
    'CHANGELOG.md',
    'tests/data/README.md',
    *(f'docs/{path.name}' for path in sorted((ROOT / 'docs').glob('*.md'))),
    'configs/README.md',
    *(f'configs/{path.parent.name}/README.md' for path in sorted((ROOT / 'configs').glob('*/README.md'))),
]
HEAD = dict(type='LinearClsHead', num_classes=4, in_channels=32)
DEIT = ROOT / 'configs/smmix/deit-tiny_smmix_8xb128-300e_in1k.py'


# Every marked example, <!-- example: NAME -->, has its test below.
EXAMPLES = {
    ('docs/get_started.md', 'base'),
    ('docs/get_started.md', 'get-model'),
    ('docs/get_started.md', 'teacher'),
    ('docs/get_started.md', 'functional'),
    ('docs/transfer.md', 'backbone'),
    ('docs/transfer.md', 'strict'),
    ('docs/architecture.md', 'method'),
    ('docs/architecture.md', 'adapter'),
    ('docs/architecture.md', 'dataset'),
    ('docs/architecture.md', 'dataset-config'),
    ('docs/architecture.md', 'hook'),
    # In tests/test_apis/test_inferencers.py.
    ('docs/inference.md', 'classification'),
    ('docs/inference.md', 'dense'),
    ('docs/inference.md', 'onnx'),
    # In tests/integration/test_trackers.py.
    ('docs/train_test.md', 'tensorboard'),
    ('docs/train_test.md', 'wandb'),
    # In tests/integration/test_switches.py.
    ('docs/switches.md', 'finetune'),
    ('docs/switches.md', 'class-balanced'),
    # In tests/integration/test_own_data_examples.py.
    ('docs/own_data.md', 'shapes'),
    ('docs/own_data.md', 'split-folders'),
    ('docs/own_data.md', 'own-config'),
    ('docs/own_data.md', 'own-backbone'),
}


def code_blocks(document: str, language: str) -> list[str]:
    return re.findall(rf'```{language}\n(.*?)```', (ROOT / document).read_text(), re.DOTALL)


def read_example(document: str, name: str) -> str:
    pattern = rf'<!-- example: {name} -->\n```python\n(.*?)```'
    (example,) = re.findall(pattern, (ROOT / document).read_text(), re.DOTALL)
    return example


def run_example(document: str, name: str) -> dict[str, Any]:
    """What the example defines; it may be run several times."""
    scope = {}
    exec(read_example(document, name).replace('register_module()', 'register_module(force=True)'), scope)
    return scope


def anchors(path: Path) -> set[str]:
    """Those that GitHub gives to the headings of a page."""
    text = re.sub(r'```.*?```', '', path.read_text(), flags=re.DOTALL)
    found = set()
    for title in re.findall(r'^#+ (.*)$', text, re.MULTILINE):
        title = re.sub(r'\[([^]]*)\]\([^)]*\)', r'\1', title).lower()
        slug = re.sub(r'[^\w\- ]', '', title).strip().replace(' ', '-')
        repeats = (f'{slug}-{number}' if number else slug for number in itertools.count())
        found.add(next(name for name in repeats if name not in found))
    return found


def test_all_marked_examples_are_tested():
    marked = {
        (document, name)
        for document in DOCUMENTS
        for name in re.findall(r'<!-- example: (.*?) -->', (ROOT / document).read_text())
    }
    assert marked == EXAMPLES


def test_functional_example_needs_torch_alone():
    example = read_example('docs/get_started.md', 'functional')
    blocked = "import sys\nsys.modules.update(dict.fromkeys(('mmengine', 'mmcv', 'mmpretrain')))\n"
    check = '\nassert mixed.shape == images.shape and soft_labels.sum(1).allclose(torch.ones(8))'
    subprocess.run([sys.executable, '-c', blocked + example + check], check=True, cwd=ROOT)


def test_readme_diff_turns_a_stock_config_into_smmix():
    """Both sides of the diff build; the weights of the one load in the other."""
    (diff,) = code_blocks('README.md', 'diff')
    sides = {}
    for side, dropped in (('before', '+'), ('after', '-')):
        lines = [line[1:] for line in diff.splitlines() if not line.startswith(dropped)]
        scope = {}
        exec('\n'.join(lines), scope)
        sides[side] = build_classifier({**scope['model'], 'data_preprocessor': dict(num_classes=1000)})
    assert type(sides['after']).__name__ == 'MixingClassifier'
    left = sides['before'].load_state_dict(sides['after'].state_dict(), strict=False)
    assert not left.missing_keys
    assert left.unexpected_keys == ['region_head.weight', 'region_head.bias']


def test_teacher_example_is_built():
    scope = run_example('docs/get_started.md', 'teacher')
    model = MODELS.build(scope['model'])
    assert model.teacher.num_classes == 1000
    checkpoint = Path(scope['model']['teacher']['init_cfg']['checkpoint'])
    assert (ROOT / f'configs/cutmix/{checkpoint.parent.name}.py').is_file()
    with pytest.raises(FileNotFoundError, match=str(checkpoint)):
        model.init_weights()


@pytest.mark.parametrize('name', ['method', 'adapter'])
def test_architecture_example_runs(pvt_arch, name):
    run_example('docs/architecture.md', name)
    if name == 'method':
        backbone = dict(type='smmix_mm.PVT', arch=pvt_arch, img_size=32)
        method = dict(type='smmix_mm.InPlaceMix', region=(2, 2))
    else:
        backbone = dict(
            type='smmix_mm.MyViT',
            img_size=64,
            embed_dims=32,
            num_layers=2,
            t2t_cfg=dict(token_dims=8, use_performer=False),
            layer_cfgs=dict(num_heads=2, feedforward_channels=16),
        )
        method = dict(type='smmix_mm.SMMix')
    torch.manual_seed(0)
    model = build_classifier(
        dict(type='smmix_mm.MixingClassifier', backbone=backbone, head=HEAD, train_cfg=dict(augments=[method]))
    )
    side = backbone['img_size']
    images = torch.randn(3, 3, side, side)
    model.backbone.eval()
    features = build_adapter(model.backbone).read(images, attention=True, class_attention=True)
    assert features.feats[-1].equal(model.backbone(images)[-1])
    assert features.grid == model.adapter.grid(images)
    assert features.attention.shape == features.class_attention.shape == (3, *features.grid)
    assert not features.attention.equal(features.class_attention)
    assert (features.attention > 0).all()
    method, streams = model.mixing.draw()
    targets = torch.eye(4)[:3]
    mixed = method(images, targets, model.answer(method.questions, images, targets), streams)
    assert mixed.images.shape == images.shape
    assert mixed.targets.sum(dim=1).tolist() == pytest.approx([1, 1, 1])


def test_base_example_inherits(tmp_path):
    path = tmp_path / 'my_config.py'
    path.write_text(read_example('docs/get_started.md', 'base'))
    cfg = Config.fromfile(path)
    assert (cfg.train_dataloader.batch_size, cfg.model.type) == (64, 'smmix_mm.MixingClassifier')


def test_names_example_builds():
    scope = run_example('docs/get_started.md', 'get-model')
    assert scope['cfg'].model.head.in_channels == scope['model'].head.layers.head.in_features == 384


def test_version_stands_in_one_place():
    (newest, *_) = re.findall(r'^## (.*)$', (ROOT / 'CHANGELOG.md').read_text(), re.MULTILINE)
    assert newest.split(' - ')[0] == f'[{smmix_mm.__version__}]'
    assert smmix_mm.__version__ not in (ROOT / 'CITATION.cff').read_text().replace('cff-version', '')
    assert smmix_mm.__version__ not in (ROOT / 'pyproject.toml').read_text()


def test_strict_example_loads_all_or_nothing(tmp_path, swin_arch):
    settings = run_example('docs/transfer.md', 'strict')['backbone']
    settings.update(arch=dict(swin_arch, depths=[1] * 4, num_heads=[1] * 4))
    classifier = MODELS.build(dict(type=settings['type'], arch=settings['arch']))
    settings['init_cfg']['checkpoint'] = str(tmp_path / 'epoch_300.pth')
    weights = {f'backbone.{name}': value for name, value in classifier.state_dict().items()}
    for missing in (None, 'backbone.norm3.weight'):
        torch.save({name: value for name, value in weights.items() if name != missing}, tmp_path / 'epoch_300.pth')
        backbone = MODELS.build(copy.deepcopy(settings))
        if missing is None:
            backbone.init_weights()
            loaded = backbone.state_dict()
            assert all(loaded[name.removeprefix('backbone.')].equal(value) for name, value in weights.items())
        else:
            with pytest.raises(ValueError, match=r'norm3\.weight'):
                backbone.init_weights()


def test_dataset_example_loads_images(tmp_path):
    run_example('docs/architecture.md', 'dataset')
    settings = run_example('docs/architecture.md', 'dataset-config')['train_dataset']
    folder = tmp_path / settings['data_prefix']
    folder.mkdir()
    for name in ('dog_0001.jpg', 'cat_0002.jpg', 'cat_0001.jpg'):
        cv2.imwrite(str(folder / name), np.full((48, 64, 3), 100, dtype=np.uint8))
    dataset = DATASETS.build({**settings, 'data_root': str(tmp_path)})
    samples = list(dataset)
    assert [sample['data_samples'].gt_label.item() for sample in samples] == [0, 0, 1]
    assert {tuple(sample['inputs'].shape) for sample in samples} == {(3, 224, 224)}
    (folder / 'cat_0001.jpg').write_bytes(b'no image')
    with pytest.raises(Exception, match=r'cat_0001\.jpg'):
        dataset[0]


def test_hook_example_logs():
    run_example('docs/architecture.md', 'hook')
    model = torch.nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[3.0, 4.0]]))
    hook = HOOKS.build(dict(type='smmix_mm.WeightNormHook', interval=2))
    runner = SimpleNamespace(model=model, message_hub=MessageHub.get_instance('hook_example'), iter=0)
    for runner.iter in range(4):
        hook.after_train_iter(runner, runner.iter)
    assert runner.message_hub.get_scalar('train/weight_norm').data[0].tolist() == [5.0, 5.0]


def test_readme_is_short():
    assert len((ROOT / 'README.md').read_text().splitlines()) <= 170
    assert (ROOT / 'docs/images/mixed.png').stat().st_size < 350_000


def test_overview_quotes_the_figures_of_the_metafiles():
    text = (ROOT / 'configs/README.md').read_text()
    section = text[text.index('## Published accuracy') : text.index('## Names')]
    rows = [line for line in section.splitlines() if line.startswith('| ') and ':--' not in line]
    quoted = [float(figure) for row in rows for figure in re.findall(r'\d+\.\d', row)]
    known = [
        result['Metrics']['Top 1 Accuracy']
        for metafile in (ROOT / 'configs').glob('*/metafile.yml')
        for model in yaml.safe_load(metafile.read_text())['Models']
        if model['Name'].endswith('in1k')
        for result in model.get('Results', [])
    ]
    assert len(quoted) == 52
    assert set(quoted) <= set(known)


def test_indices_list_every_page():
    pages = {path.name for path in (ROOT / 'docs').glob('*.md')} - {'README.md', 'index.md'}
    for document, prefix in (('README.md', 'docs/'), ('docs/README.md', '')):
        targets = re.findall(r'\]\(([^)#]+)', (ROOT / document).read_text())
        assert {prefix + page for page in pages} <= set(targets)


def test_the_site_lists_every_page():
    text = (ROOT / 'docs/index.md').read_text()
    toctrees = ''.join(re.findall(r'```{toctree}\n(.*?)```', text, re.DOTALL)).split()
    pages = {path.stem for path in (ROOT / 'docs').glob('*.md')} - {'README', 'index'}
    assert pages <= set(toctrees)


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip('sphinx')
    command = [sys.executable, '-m', 'sphinx', '-W', '--keep-going', '-q', '-c', 'docs', '.', tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / 'docs/api.html').read_text()
    assert 'id="smmix_mm.mixing.SMMix"' in text and 'motivation_scale' in text


def override(cfg: Config, options: list[str]) -> Config:
    """As ``--cfg-options`` of the tools does, in place."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    cfg.merge_from_dict(parser.parse_args(['--cfg-options', *options]).cfg_options)
    return cfg


def plain_blocks() -> list[Any]:
    """Python code of the docs that is not marked as an example, which is parts of configs."""
    pattern = r'(?<!-->\n)```python\n(.*?)```'
    return [
        pytest.param(block, id=f'{document.removeprefix("docs/")}-{number}')
        for document in DOCUMENTS
        if document.startswith('docs/')
        for number, block in enumerate(re.findall(pattern, (ROOT / document).read_text(), re.DOTALL))
    ]


@pytest.mark.parametrize('block', plain_blocks())
def test_parts_of_configs_can_be_read(block, tmp_path, monkeypatch):
    """On top of the config they inherit from, or of our recipe; every class that they name is there."""
    module = tmp_path / 'my_package/my_module.py'
    module.parent.mkdir()
    module.touch()
    monkeypatch.syspath_prepend(tmp_path)
    if '_base_' not in block:
        block = f"_base_ = '../smmix/deit-small_smmix_8xb128-300e_in1k.py'\n{block}"
    path = tmp_path / 'config.py'
    path.write_text(block.replace("'../", f"'{ROOT}/configs/"))
    cfg = Config.fromfile(path)
    registries = [value for value in vars(registry).values() if isinstance(value, Registry)]
    for name in re.findall(r"'smmix_mm\.(\w+)'", block):
        assert any(f'smmix_mm.{name}' in str(cfg) and found.get(name) for found in registries), name


def test_the_former_loader_is_one_line(tmp_path):
    """Each transform of the faster pipeline becomes the one before it, and the pipeline runs."""
    (command,) = re.findall(
        r'--cfg-options (train_dataloader.dataset.pipeline.0(?:.|\n)*?)```', (ROOT / 'docs/speed.md').read_text()
    )
    cfg = override(Config.fromfile(DEIT), command.replace('\\', '').split())
    cv2.imwrite(str(tmp_path / 'picture.jpg'), np.zeros((40, 50, 3), np.uint8))
    pipeline = cfg.train_dataloader.dataset.pipeline
    transforms = [TRANSFORMS.build(step) for step in pipeline]
    assert transforms[0].imdecode_backend == 'pillow'
    assert [type(part).__module__.partition('.')[0] for part in transforms[1:]] == ['mmpretrain', 'mmcv'] + 3 * [
        'mmpretrain'
    ]
    assert Compose(transforms)(dict(img_path=str(tmp_path / 'picture.jpg'), gt_label=0))['inputs'].shape == (
        3,
        224,
        224,
    )


def switches() -> list[list[str]]:
    """Of each row of the table of switches what it offers for ``--cfg-options``."""
    text = (ROOT / 'docs/acceleration.md').read_text()
    table = text[text.index('| Switch |') :].split('\n\n')[0]
    rows = [row.split('|')[2] for row in table.splitlines()[2:]]
    return [re.findall(r'`([\w.]+=[^`]+)`', row) for row in rows]


@pytest.mark.parametrize('options', switches(), ids=lambda options: options[0])
def test_switches_work_on_the_command_line(options):
    """As mmengine's tools read them; what they name is built."""
    cfg = Config.fromfile(DEIT)
    before = cfg.to_dict()
    override(cfg, options)
    assert cfg.to_dict() != before
    for name, hook in cfg.default_hooks.items():
        if name not in before['default_hooks']:
            built = HOOKS.build({key: value for key, value in hook.items() if key != 'priority'})
            assert type(built).__name__ in hook.type
    for option in options:
        name, _, value = option.partition('=')
        found = cfg
        for step in name.split('.'):
            found = found[step]
        assert str(found) == str(type(found)(value)) if not isinstance(found, bool) else found is (value == 'True')


@pytest.mark.parametrize('document', DOCUMENTS)
def test_links_lead_somewhere(document):
    """Files exist, and so do the headings that are named in them."""
    path = ROOT / document
    for target, anchor in re.findall(r'\]\((?!https?://)([^)#]*)#?([^)]*)\)', path.read_text()):
        page = path.parent / target if target else path
        assert page.exists(), target
        assert not anchor or anchor in anchors(page), f'{target}#{anchor}'


@pytest.mark.parametrize('document', DOCUMENTS)
def test_nothing_is_left_to_fill_in(document):
    """Marks such as @NAME@ stand where a figure is still to come."""
    assert not re.findall(r'@[A-Z]+@', (ROOT / document).read_text())


def test_backbone_example_builds():
    scope = run_example('docs/transfer.md', 'backbone')
    backbone = MODELS.build(scope['backbone'])
    with torch.no_grad():
        maps = backbone(torch.zeros(1, 3, 64, 96))
    assert [tuple(feature_map.shape) for feature_map in maps] == [
        (1, 64, 16, 24), (1, 128, 8, 12), (1, 320, 4, 6), (1, 512, 2, 3)
    ]  # fmt: skip
    # It is where tools/train.py leaves a pretraining run.
    checkpoint = Path(scope['backbone']['init_cfg']['checkpoint'])
    assert (ROOT / f'configs/smmix/{checkpoint.parent.name}.py').is_file()


@pytest.mark.parametrize(
    'command',
    [
        'train.py',
        'test.py',
        'benchmarks/compare.py',
        'visualization/browse_mixing.py',
        'visualization/attention_map.py',
        'visualization/vis_cam.py',
        'model_converters/official_to_smmix_mm.py',
        'model_converters/publish_backbone.py',
        'model_converters/publish_model.py',
        'analysis_tools/get_flops.py',
        'deployment/export_onnx.py',
        'dataset_converters/coco.py',
        'dataset_converters/ade20k.py',
        'dataset_converters/own_folders.py',
        'dataset_converters/own_coco.py',
        'dataset_converters/own_masks.py',
    ],
)
def test_options_in_the_docs_exist(command):
    text = ''.join(
        (ROOT / page).read_text()
        for page in (
            'README.md',
            *(f'docs/{name}.md' for name in ('train_test', 'tools', 'transfer', 'evaluation', 'own_data', 'inference')),
        )
    )
    path = ROOT / 'tools' / command
    # A command line may be shared within the folder.
    source = ''.join(file.read_text() for file in path.parent.glob('*.py'))
    assert path.is_file()
    uses = re.findall(rf'tools/{re.escape(command)}(.*)', text)
    assert uses
    options = [option for use in uses for option in re.findall(r'--[a-z-]+', use)]
    if command == 'train.py':
        listed = re.findall(r'^\| `(--[a-z-]+)', (ROOT / 'docs/train_test.md').read_text(), re.MULTILINE)
        assert len(listed) >= 5
        options += listed
    assert all(f"'{option}'" in source for option in options)


def test_options_of_the_robustness_tool_are_all_in_the_docs():
    text = (ROOT / 'docs/evaluation.md').read_text()
    section = text[text.index('## Out of distribution') :].split('\n## ')[0]
    listed = re.findall(r'^\| `(--[a-z-]+)', section, re.MULTILINE)
    used = [option for line in re.findall(r'robustness\.py(.*)', section) for option in re.findall(r'--[a-z-]+', line)]
    source = (ROOT / 'tools/analysis_tools/robustness.py').read_text()
    assert listed == re.findall(r"'(--[a-z-]+)'", source)
    assert set(used) <= set(listed)
