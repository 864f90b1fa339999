"""SIGTERM is noticed while it is looked for, and by all ranks in the same step; what they tell each other otherwise."""

import os
import signal

import pytest
from processes import run_ranks

from smmix_mm.resume.interruption import Interruption
from smmix_mm.resume.ranks import RankChannel


def test_sigterm_is_taken_inside_of_the_block_alone():
    heard = []
    previous = signal.signal(signal.SIGTERM, lambda *_: heard.append('before'))
    try:
        with Interruption() as interruption:
            assert not interruption.is_due(1)
            os.kill(os.getpid(), signal.SIGTERM)
            assert interruption.is_due(1)
            assert heard == []
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard == ['before']
    finally:
        signal.signal(signal.SIGTERM, previous)


def test_an_interval_of_no_steps_is_no_interval():
    with pytest.raises(ValueError, match='interrupt_interval of train_cfg has to be at least 1, but got 0'):
        Interruption(0)


def test_one_process_needs_nobody():
    with RankChannel() as channel:
        assert channel.highest(-3) == -3
        assert channel.gather('gradients') == ['gradients']


def talk(rank):
    # Without a block by the group of the run.
    assert RankChannel().gather(rank) == ([0, 1] if rank == 0 else None)
    with RankChannel() as channel, Interruption(interval=3, channel=channel) as interruption:
        assert channel.highest(-5 + rank) == -4
        if rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        assert [interruption.is_due(step) for step in range(1, 7)] == [False, False, True, False, False, True]
        assert interruption.asked == (rank == 1)
        assert channel.gather({'rank': rank}) == ([{'rank': 0}, {'rank': 1}] if rank == 0 else None)


def test_ranks_agree_every_few_steps():
    run_ranks(talk)
