"""The benchmarks run and report; what they measure depends on the machine."""

import json

import pytest
from processes import run


def test_dense_backbone(tmp_path):
    run('benchmarks/dense_backbone.py', '--sizes', '64x64', '--rounds', 1, '--out', tmp_path / 'report.json')
    result = json.loads((tmp_path / 'report.json').read_text())['results']['64x64']
    assert len(result['seconds']) == 2
    assert result['ratios']['stock / ours, time'] > 0
    assert min(result['peak memory'].values()) > 0


@pytest.mark.slow
def test_method_cost(tmp_path):
    options = ['--batch-size', 2, '--rounds', 1, '--out', tmp_path / 'report.json']
    run('benchmarks/method_cost.py', *options)
    results = json.loads((tmp_path / 'report.json').read_text())['results']
    assert min(results['seconds'].values()) > 0
    assert results['ratios']['AutoMix step / CutMix step'] > 1.5
    assert results['ratios']['SMMix, teacher step / CutMix step'] > 1


@pytest.mark.slow
def test_step_time(tmp_path):
    options = ['--models', 'pvt-tiny', '--batch-size', 2, '--rounds', 1]
    run('benchmarks/step_time.py', *options, '--out', tmp_path / 'report.json')
    report = json.loads((tmp_path / 'report.json').read_text())
    assert (report['batch_size'], report['rounds']) == (2, 1)
    assert report['results']['pvt-tiny']['ratios']['SMMix step / plain step'] > 1
