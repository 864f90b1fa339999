"""The page of all configs: up to date, complete, every figure with its source."""

import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / 'docs/model_zoo.md').read_text()
TABLES = dict(part.split('\n', 1) for part in PAGE.split('\n## ')[1:])


@pytest.fixture
def model_zoo(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'tools')
    import model_zoo

    return model_zoo


def rows(table: str) -> list[list[str]]:
    lines = [line for line in table.splitlines() if line.startswith('| [')]
    return [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]


def test_the_page_is_what_the_program_writes(model_zoo):
    assert model_zoo.write_page() == PAGE, 'run python tools/model_zoo.py'


def test_every_config_has_a_row_and_every_row_a_config():
    configs = {path.relative_to(ROOT).as_posix() for path in (ROOT / 'configs').glob('[!_]*/**/*.py')}
    shown = {path for table in TABLES.values() for path in re.findall(r'^\| \[[^]]*\]\(\.\./(.*?)\)', table, re.M)}
    assert len(configs) > 150
    assert shown == configs


def test_tasks_have_their_configs():
    """Judged by the library that runs them, as the parts in ``_base_`` say."""
    libraries = {'Image classification': set(), 'Object detection': set(), 'Semantic segmentation': set()}
    runtimes = {'detection_runtime': 'mmdet', 'segmentation_runtime': 'mmseg', '.py': 'mmpretrain'}
    assert set(TABLES) == set(libraries)
    for task, table in TABLES.items():
        for row in rows(table):
            path = ROOT / 'docs' / re.search(r'\((.*)\)', row[0])[1]
            text = path.read_text()
            # A variant inherits from another run.
            base = re.search(r"_base_ = '(\./.*|\.\./[^_{].*)'", text)
            text = (path.parent / base[1]).read_text() if base else text
            libraries[task].add(next(library for part, library in runtimes.items() if part in text))
    assert libraries == {
        'Image classification': {'mmpretrain'},
        'Object detection': {'mmdet'},
        'Semantic segmentation': {'mmseg'},
    }


def test_every_figure_of_the_metafiles_is_shown_with_its_source():
    found, expected = Counter(), Counter()
    for table in TABLES.values():
        for name, _, _, _, figures, source, _ in rows(table):
            assert (figures == '-') == (source == '-')
            assert re.fullmatch(r'-|\[arXiv (2212\.12977|2209\.04851)\]\(https://arxiv\.org/abs/\1\)', source)
            # The SMMix paper has no figures on CIFAR-100, and OpenMixup's are of those alone.
            assert ('2209.04851' in source) == ('CIFAR-100' in figures)
            for value in re.findall(r' (\d+\.\d+)', figures):
                found[re.match(r'\[(.*?)\]', name)[1], float(value)] += 1
    for metafile in (ROOT / 'configs').glob('*/metafile.yml'):
        for model in yaml.safe_load(metafile.read_text())['Models']:
            for result in model.get('Results', []):
                for value in result['Metrics'].values():
                    expected[model['Name'], float(value)] += 1
    assert found == expected
    assert found.total() >= 100


def test_figures_need_a_source(model_zoo):
    (entry,) = [entry for entry in model_zoo.read_entries() if entry['Name'] == 'swin-tiny_fmix_8xb128-300e_in1k']
    assert 'Top 1 Accuracy 79.6' in model_zoo.write_row(entry)
    del entry['Metadata']['Figures From']
    with pytest.raises(ValueError, match=r'swin-tiny_fmix_8xb128-300e_in1k has Results, .* `Figures From`'):
        model_zoo.write_row(entry)
