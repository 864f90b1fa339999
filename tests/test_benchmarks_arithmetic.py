"""What the benchmarks make of what they measure, by hand."""

import argparse

import numpy as np
import pytest
import torch
from PIL import Image
from processes import ROOT

MIB = 2**20


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    """The programs import each other by their bare names."""
    monkeypatch.syspath_prepend(ROOT / 'tools/benchmarks')


def test_peak_memory_is_exact_to_the_byte():
    from peak_memory import peak_memory

    def run():
        first, second = torch.empty(MIB), torch.empty(MIB)
        del first
        third = torch.empty(3 * MIB)
        del second
        fourth = torch.empty(10)
        return third, fourth

    # Floats of four bytes: the second and the third at once.
    assert peak_memory(run, torch.device('cpu')) == 4 * 4 * MIB
    # It starts from nothing again, and what is smaller is smaller.
    assert peak_memory(lambda: torch.empty(1000), torch.device('cpu')) == 4000
    assert peak_memory(lambda: None, torch.device('cpu')) == 0


def test_peak_memory_sees_what_lives_on_for_the_backward():
    from peak_memory import peak_memory

    leaf = torch.ones(1000, requires_grad=True)

    def run():
        # exp keeps its result, of 4000 bytes; sin its argument, the same again; beside it its own result.
        leaf.exp().sin()

    assert peak_memory(run, torch.device('cpu')) == 2 * 4000


def test_recipes_and_their_bound():
    import step_time

    times = {
        'CutMix step': 10.0,
        'Mixup step beside CutMix': 12.0,
        'SMMix step': 14.0,
        'Mixup step beside SMMix': 12.5,
        'SMMix, half scale step': 11.0,
        'Mixup step beside SMMix, half scale': 12.0,
        'evaluation forward': 4.0,
        'evaluation forward, half scale': 0.9,
        'evaluation forward with attention': 4.1,
        'mixing alone': 0.1,
    }
    found = {name: ratio(times) for name, ratio in step_time.RATIOS.items()}
    assert found['SMMix recipe / CutMix recipe'] == pytest.approx(26.5 / 22)
    assert found['half scale: SMMix recipe / CutMix recipe'] == pytest.approx(23 / 22)
    # Half of 1.05 * 4 on top of the mean of 10 and 12.
    assert found['SMMix recipe / bound'] == pytest.approx(13.25 / 13.1)
    assert found['bound / CutMix recipe'] == pytest.approx(13.1 / 11)
    assert found['half scale: recipe / bound of a quarter'] == pytest.approx(11.5 / (11 + 2.1 / 4))
    assert found['half scale: extra / 1.05 evaluation forward'] == pytest.approx(1 / 4.2)
    assert found['half scale: forward / full forward'] == pytest.approx(0.225)


def test_the_memory_of_a_recipe_is_that_of_its_largest_step():
    import step_time

    peaks = {'CutMix step': 100, 'Mixup step beside CutMix': 101, 'SMMix step': 102, 'Mixup step beside SMMix': 101.5}
    ratios = step_time.memory_ratios(peaks)
    assert ratios['SMMix step / CutMix step, memory'] == pytest.approx(1.02)
    assert ratios['SMMix recipe / CutMix recipe, memory'] == pytest.approx(102 / 101)


def test_medians_and_ratios_are_taken_within_rounds(monkeypatch):
    import timing

    samples = {'long': iter([4.0, 9.0, 10.0]), 'short': iter([1.0, 3.0, 2.0])}
    monkeypatch.setattr(timing, 'measure', lambda run, repeats, device: next(samples[run()]))
    runs = {name: (lambda name=name: name, 1) for name in samples}
    ratios = {'long / short': lambda t: t['long'] / t['short']}
    found = timing.time_interleaved(runs, ratios, 3, torch.device('cpu'), show_progress=False)
    assert found['seconds'] == {'long': 9.0, 'short': 2.0}
    # Of 4, 3 and 5; the medians' own ratio would be 4.5.
    assert found['ratios'] == {'long / short': 4.0}
    assert found['quartiles'] == {'long / short': [3.5, 4.5]}


@pytest.mark.parametrize(
    ('options', 'device', 'dtype'),
    [([], 'cuda', None), (['--amp'], 'cuda', 'float16'), (['--amp'], 'cpu', 'bfloat16')],
)
def test_amp_without_a_dtype_is_the_devices(options, device, dtype):
    import timing

    parser = argparse.ArgumentParser()
    timing.add_precision_options(parser)
    args = parser.parse_args([*options, '--device', device])
    assert timing.amp_dtype(args.amp, torch.device(device)) == dtype


def test_parts_of_a_step_do_not_count_what_is_inside_them(monkeypatch):
    import profile_step

    stopwatch = profile_step.Stopwatch(torch.device('cpu'))
    clock = iter([0.0, 1.0, 4.0, 6.0, 6.5, 10.0])
    monkeypatch.setattr(stopwatch, '_now', lambda: next(clock))
    inner = stopwatch.wrap('inner', lambda value: 2 * value)
    with stopwatch.part('outer'):
        assert inner(3) == 6
        assert inner(value=4) == 8
    assert stopwatch.read() == {'outer': 1.0 + 2.0 + 3.5, 'inner': 3.0 + 0.5}
    assert stopwatch.read() == {}


def test_cores_that_feed_devices():
    import data_loading

    assert data_loading.cores_needed(device_rate=1000, core_rate=160) == pytest.approx(50)
    assert data_loading.cores_needed(device_rate=300, core_rate=150, devices=1) == pytest.approx(2)


def test_photographs_are_laid_out_like_imagenet(tmp_path):
    import data_loading

    paths = data_loading.make_images(tmp_path, 12)
    assert len({path.read_bytes() for path in paths}) == 12
    assert {path.parent.parent for path in paths} == {tmp_path / 'train'}
    for path in paths:
        assert Image.open(path).size == (500, 375)
        # A photograph, neither flat nor noise.
        assert 20 < np.asarray(Image.open(path)).std() < 120
    mean_size = np.mean([path.stat().st_size for path in paths])
    assert 80_000 < mean_size < 140_000
    loader = data_loading.build_loader(data_loading.RECIPES[0], tmp_path, num_workers=0)
    assert len(loader.dataset) == 12
    assert loader.dataset[3]['inputs'].shape == (3, 224, 224)
