"""What one draw for all ranks saves: the arithmetic of the curve, and the measurement beside it."""

import json
import random

import cv2
import pytest
from processes import ROOT, run


@pytest.fixture
def one_draw(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / 'tools/benchmarks'))
    import one_draw

    return one_draw


def test_shares_are_those_of_coins_that_are_tossed(one_draw):
    tossed = random.Random(0)
    for ranks, prob in ((1, 0.5), (2, 0.5), (8, 0.2)):
        steps = [[tossed.random() < prob for _ in range(ranks)] for _ in range(20000)]
        own = sum(map(any, steps)) / len(steps)
        assert one_draw.share_of_steps(ranks, prob, same_on_all_ranks=False) == pytest.approx(own, abs=0.01)
        assert one_draw.share_of_steps(ranks, prob, same_on_all_ranks=True) == prob


def test_cost_of_a_step(one_draw):
    assert one_draw.step_cost(1024, 0.5, 0.3, True) == pytest.approx(1.15)
    assert one_draw.step_cost(2, 0.5, 0.3, False) == pytest.approx(1.225)
    costs = [one_draw.step_cost(ranks, 0.5, 0.3, False) for ranks in one_draw.RANKS]
    assert one_draw.RANKS[-1] == 1024
    assert costs == sorted(costs)
    assert costs[-1] == pytest.approx(1.3)


def test_figure_without_measurement(one_draw, tmp_path):
    one_draw.draw_figure(tmp_path / 'curve.png', {}, 0.5, one_draw.EXTRA_FORWARD)
    height, width = cv2.imread(str(tmp_path / 'curve.png')).shape[:2]
    assert width > height > 300


@pytest.mark.slow
def test_measured_shares_follow_the_formula(tmp_path):
    """Of the draws and of the time of steps that are sleeps; real steps share the cores, and are only there."""
    out = tmp_path / 'report.json'
    run(
        'benchmarks/one_draw.py', '--processes', 2, 4, '--steps', 2, '--sleeping-steps', 60, '--draws', 4000,
        '--sleep', 0.05, '--extra', 1.0, '--out', out, timeout=900,
    )  # fmt: skip
    measured = json.loads(out.read_text())['results']['measured']
    for processes, own in (('2', 0.75), ('4', 0.9375)):
        result = measured[processes]
        assert result['shares'] == {'one draw': pytest.approx(0.5, abs=0.03), 'own draws': pytest.approx(own, abs=0.03)}
        # The extra forward is as long as a step here. Of 60 steps a few more may have it, and each waits for others.
        sleeping = result['sleeping']
        assert 0.05 <= sleeping['without SMMix'] < 0.1
        assert sleeping['one draw'] / sleeping['without SMMix'] == pytest.approx(1.5, abs=0.12)
        assert sleeping['own draws'] / sleeping['without SMMix'] == pytest.approx(1 + own, abs=0.12)
        assert min(result['real'].values()) > 0
