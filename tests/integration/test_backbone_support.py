"""The table of backbones in the docs is what the script finds."""

import importlib.util
import re

import pytest
from mmengine.config import Config
from mmengine.logging import MessageHub
from processes import ROOT

PAGE = ROOT / 'docs/backbones.md'


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('tool', ROOT / 'tools/analysis_tools/backbone_support.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def run():
    MessageHub.get_instance('backbone_support').update_info('seed', 0)


@pytest.fixture(scope='module')
def written(tool):
    """Rows and reasons of the page, by backbone."""
    text = PAGE.read_text().partition(tool.BEGIN)[2].partition(tool.END)[0]
    rows = {row.split('`')[1]: row for row in text.splitlines() if row.startswith('| `')}
    reasons = re.findall(r'^- `(\w+)`: (.*)$', text, re.MULTILINE)
    return rows, {name: [why for of, why in reasons if of == name] for name in rows}


def test_fifty_backbones_and_more_run(written):
    rows, reasons = written
    cells = {name: [cell.strip() for cell in row.strip('| ').split(' | ')] for name, row in rows.items()}
    assert len(rows) >= 58
    assert sum(row[2] == 'yes' for row in cells.values()) >= 50
    assert {name for name, row in cells.items() if set(row[2:6]) != {'yes'}} == {
        name for name, why in reasons.items() if why
    }


@pytest.mark.parametrize('name', ['LeNet5', 'MobileNetV3', 'EdgeNeXt'])
def test_a_row_is_what_the_script_finds(tool, written, name):
    rows, reasons = written
    config = rows[name].split('`')[3]
    (path,) = tool.CONFIGS.glob(f'[!_]*/**/{config}.py')
    found = tool.try_backbone(name, path)
    assert rows[name] in tool.table([found])
    assert found.reasons == reasons[name]


@pytest.mark.slow
def test_the_whole_table_is_what_the_script_finds(tool):
    found = [tool.try_backbone(name, path) for name, path in tool.find_configs().items()]
    assert tool.table(found) in PAGE.read_text()


def test_images_are_as_large_as_the_config_makes_them(tool):
    crop = dict(type='CenterCrop', crop_size=224)
    cfg = Config(
        dict(
            test_dataloader=dict(dataset=dict(pipeline=[dict(type='ResizeEdge', scale=256), crop])),
            model=dict(backbone=dict(img_size=7)),
        )
    )
    assert tool.image_size(cfg) == 224
    cfg.test_dataloader.dataset.pipeline = [dict(type='Resize', scale=(384, 384))]
    assert tool.image_size(cfg) == 384
    cfg.test_dataloader.dataset.pipeline = [dict(type='PackInputs')]
    assert tool.image_size(cfg) == 7
