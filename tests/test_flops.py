"""FLOPs as ``tools/analysis_tools/get_flops.py`` counts them, against published figures and formulas."""

import re
import runpy
from pathlib import Path

import pytest
import torch
from mmengine.analysis import FlopAnalyzer
from mmengine.config import Config
from torch import nn

from smmix_mm.engine import build_model

ROOT = Path(__file__).resolve().parents[1]
TOOL = runpy.run_path(str(ROOT / 'tools/analysis_tools/get_flops.py'))
# Published GFLOPs at 224 x 224.
PUBLISHED = {
    'deit-tiny': 1.3,
    'deit-small': 4.7,
    'deit-base': 17.6,
    'pvt-tiny': 1.9,
    'pvt-small': 3.8,
    'pvt-medium': 6.7,
    'pvt-large': 9.8,
    'cait-xxs24': 2.5,
    'cait-xxs36': 3.8,
    'swin-tiny': 4.5,
}
SLOW = {'deit-base', 'pvt-small', 'pvt-medium', 'pvt-large', 'cait-xxs24', 'cait-xxs36', 'swin-tiny'}


class Attention(nn.Module):
    def forward(self, queries, keys, values):
        return nn.functional.scaled_dot_product_attention(queries, keys, values)


def test_fused_attention_counts_both_products():
    inputs = (torch.zeros(2, 3, 5, 8), torch.zeros(2, 3, 7, 8), torch.zeros(2, 3, 7, 4))
    counter = FlopAnalyzer(Attention(), inputs)
    assert counter.total() == 0
    counter.set_op_handle('aten::scaled_dot_product_attention', TOOL['count_fused_attention'])
    assert counter.by_operator() == {'attention': 2 * 3 * 5 * 7 * 8 + 2 * 3 * 5 * 7 * 4}


@pytest.mark.parametrize(
    'name', [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in PUBLISHED]
)
def test_published_figures(name):
    model = build_model(Config.fromfile(ROOT / f'configs/smmix/{name}_smmix_8xb128-300e_in1k.py'))
    flops, _ = TOOL['analyze'](model, (224, 224))
    assert flops.total() / 1e9 == pytest.approx(PUBLISHED[name], abs=0.1)


def test_docs_quote_the_published_figures():
    table = (ROOT / 'docs/tools.md').read_text().split('## FLOPs')[1]
    rows = re.findall(r'^\| [A-Z].* \| ([\d., ]+) \| ([\d., ]+) \|$', table, re.MULTILINE)
    measured, published = ([float(value) for row in rows for value in row[column].split(',')] for column in (0, 1))
    assert published == list(PUBLISHED.values())
    assert measured == pytest.approx(published, abs=0.1)
