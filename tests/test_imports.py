"""Which package of smmix_mm may know which: imports and registry look-ups go down only."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / 'smmix_mm'

# From the bottom up. A module belongs to the longest name that it starts with; those of one line may import each other.
ORDER = (
    # Versions of torch; torch alone.
    ('compat',),
    ('functional',),
    ('structures', 'registry', 'streams', 'files', 'unwrapping', 'configs'),
    ('adapters',),
    ('checkpoint',),
    ('models.backbones', 'models.initialization', 'models.pretrained'),
    ('losses',),
    ('mixing',),
    ('models',),
    ('evaluation',),
    ('datasets',),
    ('resume',),
    ('visualization',),
    ('engine',),
    ('apis',),
)
LEVELS = {name: level for level, names in enumerate(ORDER) for name in names}


def read_modules() -> dict[str, ast.Module]:
    """The syntax trees of all modules by name, without ``smmix_mm.``; the root, which names everything, is left out."""
    trees = {}
    for path in PACKAGE.rglob('*.py'):
        steps = path.relative_to(PACKAGE).with_suffix('').parts
        name = '.'.join(steps[:-1] if steps[-1] == '__init__' else steps)
        if name:
            trees[name] = ast.parse(path.read_text())
    return trees


MODULES = read_modules()


def is_package(name: str) -> bool:
    return (PACKAGE / name.replace('.', '/')).is_dir()


def level_of(module: str) -> int:
    steps = module.split('.')
    names = ['.'.join(steps[:count]) for count in range(len(steps), 0, -1)]
    found = [LEVELS[name] for name in names if name in LEVELS]
    assert found, f'smmix_mm.{module} has no place in ORDER'
    return found[0]


def resolve(module: str, name: str) -> str:
    """``from module import name``: the module ``name`` if it is one, or the one that says what it is."""
    return f'{module}.{name}'.lstrip('.') if f'{module}.{name}'.lstrip('.') in MODULES else module


def find_imports(module: str, tree: ast.Module) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith('smmix_mm.')]
            found |= {name.removeprefix('smmix_mm.') for name in names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                steps = module.split('.') if is_package(module) else module.split('.')[:-1]
                source = '.'.join([*steps[: len(steps) - node.level + 1], *filter(None, [node.module])])
            elif (node.module or '').partition('.')[0] == 'smmix_mm':
                source = node.module.removeprefix('smmix_mm').lstrip('.')
            else:
                continue
            found |= {resolve(source, alias.name) for alias in node.names}
    return found - {''}


def find_registered() -> dict[str, str]:
    """The modules of everything that is registered, by the name it has there."""
    registered = {}
    for module, tree in MODULES.items():
        for node in tree.body:
            for call in getattr(node, 'decorator_list', ()):
                if isinstance(call, ast.Call) and getattr(call.func, 'attr', '') == 'register_module':
                    given = [ast.literal_eval(keyword.value) for keyword in call.keywords if keyword.arg == 'name']
                    names = given[0] if given else node.name
                    registered |= dict.fromkeys([names] if isinstance(names, str) else names, module)
    return registered


REGISTERED = find_registered()


def find_lookups(tree: ast.Module) -> set[str]:
    """The modules of what is asked from a registry by a written-out name, ``'smmix_mm.MixBlock'``."""
    written = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    names = {text.removeprefix('smmix_mm.') for text in written if text.startswith('smmix_mm.')}
    return {REGISTERED[name] for name in names if name in REGISTERED}


def test_no_arrow_runs_up():
    assert set(REGISTERED) >= {
        'PVT',
        'SMMix',
        'MixBlock',
        'CheckpointHook',
        'EpochBasedTrainLoop',
        'DigitScenesDetection',
    }
    assert all(level_of(module) >= 0 for module in MODULES)
    up = {
        (module, target)
        for module, tree in MODULES.items()
        for target in find_imports(module, tree) | find_lookups(tree)
        if level_of(target) > level_of(module)
    }
    assert up == set()


def test_packages_do_not_know_each_other_both_ways():
    """Not even those on one line of the order."""
    arrows = {
        (module.partition('.')[0], target.partition('.')[0])
        for module, tree in MODULES.items()
        for target in find_imports(module, tree)
    }
    circles = {(one, other) for one, other in arrows if one < other and (other, one) in arrows}
    assert circles == set()


@pytest.mark.slow
def test_a_backbone_comes_without_training_loops_and_hooks():
    """As a detector or a segmentor of a stock config builds it: by name, in the scope of its library."""
    code = """
import sys
from mmengine.registry import init_default_scope
import mmdet.registry, mmseg.registry
for library in (mmdet, mmseg):
    init_default_scope(library.__name__)
    library.registry.MODELS.build(dict(type='smmix_mm.PVT', arch='tiny', out_type='featmap'))
import smmix_mm
smmix_mm.PVT
print(*(name for name in sys.modules if name.startswith('smmix_mm.')))
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    loaded = {name.removeprefix('smmix_mm.') for name in done.stdout.splitlines()[-1].split()}
    assert loaded >= {'checkpoint.strict_loading', 'models.backbones.pvt', 'registry'}
    unwanted = ('evaluation', 'datasets', 'resume', 'engine', 'visualization', 'apis')
    assert {name for name in loaded if name.partition('.')[0] in unwanted} == set()
