"""The benchmarks run and report; what they measure depends on the machine."""

import json
import platform

import pytest
import torch
from marks import needs_one_dnn
from mmengine.utils import digit_version
from processes import run


@pytest.mark.slow
@needs_one_dnn
def test_dense_backbone(tmp_path):
    run('benchmarks/dense_backbone.py', '--sizes', '64x64', '--rounds', 1, '--out', tmp_path / 'report.json')
    result = json.loads((tmp_path / 'report.json').read_text())['results']['64x64']
    assert len(result['seconds']) == 6
    assert len(result['ratios']) == 5
    assert min(result['ratios'].values()) > 0
    assert min(result['peak memory'].values()) > 0


@pytest.mark.slow
def test_mixing_copy(tmp_path):
    options = ['--batch-sizes', 2, '--dtypes', 'bfloat16', '--rounds', 1, '--threads', 1]
    done = run('benchmarks/mixing_copy.py', *options, '--out', tmp_path / 'report.json')
    report = json.loads((tmp_path / 'report.json').read_text())
    # Two memory formats, two grids, three regions each.
    assert len(report['results']) == 12
    for result in report['results'].values():
        assert min(result['ratios'].values()) > 0
    assert report['threads'] == 1
    assert done.stdout.count('| bfloat16 |') == 2


@pytest.mark.slow
def test_data_loading(tmp_path):
    options = ['--images', 32, '--epochs', 1, '--workers', 0, 2, '--device-rates', 100]
    run('benchmarks/data_loading.py', *options, '--out', tmp_path / 'report.json')
    results = json.loads((tmp_path / 'report.json').read_text())['results']
    assert min(results.pop('decoding').values()) > 0
    assert results.pop('mean bytes') > 10_000
    plain, erasing = results.values()
    assert list(plain['transforms'])[:2] == ['LoadImage', 'RandomResizedCrop']
    for result in (plain, erasing):
        assert set(result['loader']) == {'0', '2'}
        least = min(rates['per core'] for rates in result['loader'].values())
        assert result['cores']['100.0'] == pytest.approx(800 / least)


@pytest.mark.slow
def test_input_pipelines(tmp_path):
    run('benchmarks/input_pipelines.py', '--images', 10, '--rounds', 3, '--out', tmp_path / 'report.json')
    results = json.loads((tmp_path / 'report.json').read_text())['results']
    assert [len(result['seconds']) for result in results.values()] == [4, 3, 3]
    assert 0 < results['classification']['ratios']['ours / timm'] < 1
    assert results['classification']['ratios']['timm / timm'] == 1


@pytest.mark.slow
def test_step_rate(tmp_path):
    variants = ['channels-last']
    variants += ['fused AdamW'] if digit_version(torch.__version__) >= digit_version('2.4') else []
    variants += ['oneDNN'] if torch.backends.mkldnn.is_available() else []
    variants += ['memory kept'] if platform.libc_ver()[0] == 'glibc' else []
    options = ['--amp', 'float32', '--batch-size', 2, '--rounds', 1, '--out', tmp_path / 'report.json']
    run('benchmarks/step_rate.py', '--models', 'pvt-tiny', '--variants', 'as it is', *variants, *options)
    (result,) = json.loads((tmp_path / 'report.json').read_text())['results'].values()
    assert len(result['ratios']) == len(variants)
    first = result['first']
    for variant in variants[1:]:
        # The second step has the weights of the first update.
        assert first[variant] == pytest.approx(first['as it is'], rel=1e-5), variant


@pytest.mark.slow
def test_method_cost(tmp_path):
    # A median: on a busy machine a single round may show a teacher's forward to cost less than nothing.
    options = ['--batch-size', 2, '--rounds', 3, '--out', tmp_path / 'report.json']
    run('benchmarks/method_cost.py', *options, timeout=900)
    results = json.loads((tmp_path / 'report.json').read_text())['results']
    assert min(results['seconds'].values()) > 0
    assert results['ratios']['AutoMix step / CutMix step'] > 1.5
    assert results['ratios']['SMMix, teacher step / CutMix step'] > 1


@pytest.mark.slow
def test_profile_step(tmp_path):
    options = ['--models', 'pvt-tiny', '--batch-size', 2, '--steps', 2, '--channels-last']
    run('benchmarks/profile_step.py', *options, '--out', tmp_path / 'report.json')
    smmix, cutmix = json.loads((tmp_path / 'report.json').read_text())['results']['pvt-tiny'].values()
    added = {
        'motivation pass',
        'attention score',
        'window search',
        'paste',
        'window mask',
        'mixed labels',
        'token grid',
    }
    assert set(smmix['parts']) == set(cutmix['parts']) | added
    for result in (smmix, cutmix):
        # The backward takes the most of a step, and less than all.
        assert max(result['parts'], key=result['parts'].get) == 'backward'
        events = json.loads((tmp_path / 'traces' / result['trace'].rpartition('/')[2]).read_text())['traceEvents']
        assert set(result['parts']) <= {event.get('name') for event in events}
        assert {'aten::addmm', 'aten::mm'} <= set(result['operators'])


@pytest.mark.slow
def test_step_time(tmp_path):
    options = ['--models', 'pvt-tiny', '--batch-size', 2, '--rounds', 1]
    run('benchmarks/step_time.py', *options, '--out', tmp_path / 'report.json')
    report = json.loads((tmp_path / 'report.json').read_text())
    assert (report['batch_size'], report['rounds']) == (2, 1)
    result = report['results']['pvt-tiny']
    assert result['ratios']['bound / CutMix recipe'] > 1
    # Exact, whatever else the machine does. Most of it are weights' gradients here, and the region classifier's.
    assert 1 <= result['peak memory ratios']['SMMix recipe / CutMix recipe, memory'] < 1.02


@pytest.mark.slow
def test_step_time_in_mixed_precision_and_compiled(tmp_path):
    """The command for a GPU, but for the device; what it says of another one is refused."""
    options = ['--models', 'deit-tiny', '--batch-size', 2, '--rounds', 1, '--amp', '--compile', 'aot_eager']
    run('benchmarks/step_time.py', *options, '--out', tmp_path / 'report.json', timeout=1200)
    report = json.loads((tmp_path / 'report.json').read_text())
    assert (report['amp'], report['compile']) == ('bfloat16', 'aot_eager')
    assert min(report['results']['deit-tiny']['seconds'].values()) > 0
    refused = run('benchmarks/step_time.py', *options, '--device', 'cpu', '--sync-debug', check=False)
    assert refused.returncode != 0
    assert '--sync-debug needs --device cuda, but got cpu' in refused.stderr
