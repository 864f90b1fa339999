"""What the documents say runs."""

import argparse
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config, DictAction
from mmpretrain.models import build_classifier
from mmpretrain.registry import HOOKS

from smmix_mm.adapters import build_adapter
from smmix_mm.registry import MODELS

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    'README.md',
    'CHANGELOG.md',
    *(f'docs/{path.name}' for path in sorted((ROOT / 'docs').glob('*.md'))),
    'configs/README.md',
    *(f'configs/{path.parent.name}/README.md' for path in sorted((ROOT / 'configs').glob('*/README.md'))),
]
HEAD = dict(type='LinearClsHead', num_classes=4, in_channels=32)


def code_blocks(document: str, language: str) -> list[str]:
    return re.findall(rf'```{language}\n(.*?)```', (ROOT / document).read_text(), re.DOTALL)


def test_readme_example_needs_torch_alone():
    (example,) = [block for block in code_blocks('README.md', 'python') if 'smmix_mm.functional' in block]
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


def test_readme_teacher_is_built():
    (example,) = [block for block in code_blocks('README.md', 'python') if 'teacher=' in block]
    scope = {}
    exec(example, scope)
    model = MODELS.build(scope['model'])
    assert model.teacher.num_classes == 1000
    checkpoint = Path(scope['model']['teacher']['init_cfg']['checkpoint'])
    assert (ROOT / f'configs/cutmix/{checkpoint.parent.name}.py').is_file()
    with pytest.raises(FileNotFoundError, match=str(checkpoint)):
        model.init_weights()


@pytest.mark.parametrize('name', ['InPlaceMix', 'T2TViTAdapter'])
def test_architecture_example_runs(pvt_arch, name):
    (example,) = [block for block in code_blocks('docs/architecture.md', 'python') if f'class {name}' in block]
    scope = {}
    exec(example.replace('register_module()', 'register_module(force=True)'), scope)
    if name == 'InPlaceMix':
        backbone = dict(type='smmix_mm.PVT', arch=pvt_arch, img_size=32)
        method = dict(type='smmix_mm.InPlaceMix', region=(2, 2))
    else:
        backbone = dict(
            type='T2T_ViT',
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


def switches() -> list[list[str]]:
    """Of each row of the table of switches what it offers for ``--cfg-options``."""
    text = (ROOT / 'docs/acceleration.md').read_text()
    table = text[text.index('| Switch |') :].split('\n\n')[0]
    rows = [row.split('|')[2] for row in table.splitlines()[2:]]
    return [re.findall(r'`([\w.]+=[^`]+)`', row) for row in rows]


@pytest.mark.parametrize('options', switches(), ids=lambda options: options[0])
def test_switches_work_on_the_command_line(options):
    """As mmengine's tools read them; what they name is built."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    cfg = Config.fromfile(ROOT / 'configs/smmix/deit-tiny_smmix_8xb128-300e_in1k.py')
    before = cfg.to_dict()
    cfg.merge_from_dict(parser.parse_args(['--cfg-options', *options]).cfg_options)
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
    path = ROOT / document
    for target in re.findall(r'\]\((?!https?://)([^)#]+)', path.read_text()):
        assert (path.parent / target).exists(), target


@pytest.mark.parametrize('document', DOCUMENTS)
def test_nothing_is_left_to_fill_in(document):
    """Marks such as @NAME@ stand where a figure is still to come."""
    assert not re.findall(r'@[A-Z]+@', (ROOT / document).read_text())


def test_readme_backbone_builds():
    (example,) = [block for block in code_blocks('README.md', 'python') if 'featmap' in block]
    scope = {}
    exec(example, scope)
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
        'model_converters/official_to_smmix_mm.py',
        'model_converters/publish_backbone.py',
        'dataset_converters/coco.py',
        'dataset_converters/ade20k.py',
    ],
)
def test_options_in_the_readme_exist(command):
    text = (ROOT / 'README.md').read_text()
    path = ROOT / 'tools' / command
    # A command line may be shared within the folder.
    source = ''.join(file.read_text() for file in path.parent.glob('*.py'))
    assert path.is_file()
    uses = re.findall(rf'tools/{re.escape(command)}(.*)', text)
    assert uses
    options = [option for use in uses for option in re.findall(r'--[a-z-]+', use)]
    if command == 'train.py':
        listed = re.findall(r'^\| `(--[a-z-]+)', text, re.MULTILINE)
        assert len(listed) >= 5
        options += listed
    assert all(f"'{option}'" in source for option in options)
