import random

import numpy as np
import pytest
import torch

from smmix_mm import streams
from smmix_mm.streams import StepClock, sample_stream, seed_step, seeded_globals, step_streams


def both(streams):
    return streams.shared, streams.local


def numbers(stream):
    return stream.integers(2**62, size=4).tolist()


def test_same_seed_and_step_draw_the_same():
    for rank in (0, 3):
        assert numbers(step_streams(7, 5, 1, rank).shared) == numbers(step_streams(7, 5, 1, rank).shared)
        assert numbers(step_streams(7, 5, 1, rank).local) == numbers(step_streams(7, 5, 1, rank).local)


def test_ranks_share_one_stream_and_have_one_of_their_own():
    ranks = [step_streams(7, 5, rank=rank) for rank in range(8)]
    assert len({tuple(numbers(step.shared)) for step in ranks}) == 1
    assert len({tuple(numbers(step.local)) for step in ranks}) == 8


def test_streams_of_different_seeds_steps_and_calls_differ():
    keys = [(seed, iteration, repeats) for seed in range(3) for iteration in range(3) for repeats in range(3)]
    drawn = [tuple(numbers(stream)) for key in keys for stream in both(step_streams(*key))]
    assert len(set(drawn)) == 2 * len(keys)


def test_clock_reads_seed_and_iteration_of_the_run(enter_run):
    clock = StepClock()
    enter_run(seed=11, iteration=40)
    assert clock.tick() == (11, 40, 0)
    enter_run(seed=11, iteration=41)
    assert clock.tick() == (11, 41, 0)


def test_clock_numbers_calls_within_one_iteration(enter_run):
    """Outside a run, and in one that does not advance, each step draws again all the same."""
    clock = StepClock()
    enter_run(seed=11, iteration=0)
    assert [clock.tick()[2] for _ in range(3)] == [0, 1, 2]
    enter_run(seed=11, iteration=1)
    assert [clock.tick()[2] for _ in range(2)] == [0, 1]


def test_a_resumed_run_draws_what_the_uninterrupted_one_would(enter_run):
    whole = StepClock()
    ticks = []
    for iteration in range(10):
        enter_run(seed=5, iteration=iteration)
        ticks.append(whole.tick())
    resumed = StepClock()
    for iteration in range(6, 10):
        enter_run(seed=5, iteration=iteration)
        assert resumed.tick() == ticks[iteration]


def test_a_new_run_of_the_same_model_starts_its_count_anew(enter_run):
    """A model that was tried out before its run, or trained in an earlier one, draws as a new one would."""
    clock = StepClock()
    enter_run(seed=5, iteration=0, name='first')
    clock.tick()
    enter_run(seed=5, iteration=0, name='second')
    assert clock.tick() == (5, 0, 0)


def test_every_rank_takes_the_seed_of_the_first_once_a_run(enter_run, monkeypatch):
    """mmengine gives each rank a seed of its own under diff_rank_seed."""
    asked = []

    def broadcast(seeds, src):
        asked.append(seeds[0])
        assert src == 0
        seeds[0] = 100

    monkeypatch.setattr(streams, 'get_world_size', lambda: 2)
    monkeypatch.setattr(streams, 'broadcast_object_list', broadcast)
    clock = StepClock()
    for iteration in range(3):
        enter_run(seed=103, iteration=iteration)
        assert clock.tick() == (100, iteration, 0)
    assert asked == [103]


def global_state():
    return (
        random.getstate(),
        np.random.get_state()[1].tolist(),
        np.random.get_state()[2],
        torch.get_rng_state().tolist(),
    )


def draw_globals():
    return random.random(), np.random.rand(), torch.rand(1).item(), torch.randperm(9).tolist()


@pytest.mark.parametrize('fails', [False, True])
def test_global_states_come_back(fails):
    before = global_state()
    try:
        with seeded_globals(np.random.default_rng(0)):
            draw_globals()
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert global_state() == before


def test_seeded_globals_draw_from_the_stream_alone():
    drawn = []
    for seed, noise in ((0, 1), (0, 2), (1, 1)):
        random.seed(noise)
        np.random.seed(noise)
        torch.manual_seed(noise)
        with seeded_globals(np.random.default_rng(seed)):
            drawn.append(draw_globals())
    assert drawn[0] == drawn[1]
    assert all(one != other for one, other in zip(drawn[0], drawn[2], strict=True))


def test_seeded_globals_advance_the_stream():
    stream, drawn = np.random.default_rng(0), []
    for _ in range(2):
        with seeded_globals(stream):
            drawn.append(draw_globals())
    assert drawn[0] != drawn[1]


def test_samples_passes_and_positions_have_streams_of_their_own():
    """And none is that of a step."""
    keys = [(seed, epoch, index) for seed in range(3) for epoch in range(3) for index in range(3)]
    drawn = [tuple(numbers(sample_stream(*key))) for key in keys]
    drawn += [tuple(numbers(sample_stream(*key, position))) for key in keys for position in range(3)]
    drawn += [tuple(numbers(stream)) for key in keys for stream in both(step_streams(*key))]
    assert len(set(drawn)) == len(drawn)


def draw_globally():
    return random.random(), float(np.random.rand()), float(torch.rand(1))


def test_a_step_is_seeded_by_seed_iteration_and_rank():
    drawn = {}
    for key in [(3, 5, 0), (3, 5, 1), (3, 6, 0), (4, 5, 0), (3, 5, 0)]:
        seed_step(*key)
        assert drawn.setdefault(key, draw_globally()) is not None
        seed_step(*key)
        assert draw_globally() == drawn[key]
    # Of each of the three generators.
    assert all(len({numbers[kind] for numbers in drawn.values()}) == 4 for kind in range(3))


def test_seeding_a_step_leaves_no_trace_of_what_was_drawn_before():
    torch.randn(3)  # leaves half a pair of normal numbers behind
    np.random.randn()
    random.gauss(0, 1)
    seed_step(3, 5)
    first = torch.randn(3).tolist(), np.random.randn(), random.gauss(0, 1)
    seed_step(3, 5)
    assert (torch.randn(3).tolist(), np.random.randn(), random.gauss(0, 1)) == first
