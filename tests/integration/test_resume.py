"""Runs that are killed or warned at any moment, as real processes, and resumed to the same end."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
from resumable import Training, differences, small_config, write_images

KINDS = {
    # By epoch or by iteration; number of processes.
    'one process': (True, 1),
    'two processes': (True, 2),
    'iterations, AMP': (False, 1),
    'iterations, AMP, two processes': (False, 2),
}


class Recipes:
    """The configs of the trainings and, once asked for, the runs that nothing interrupts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        write_images(folder / 'train')
        write_images(folder / 'val', count=8)
        self._whole: dict[str, Training] = {}

    def training(self, kind: str, name: str, **changes: object) -> Training:
        by_epoch, ranks = KINDS[kind]
        cfg = small_config(self.folder, by_epoch)
        cfg.merge_from_dict(changes)
        path = self.folder / f'{name}.py'
        cfg.dump(path)
        return Training(path, self.folder / name, ranks)

    def whole(self, kind: str) -> Training:
        if kind not in self._whole:
            name = kind.replace(', ', '_').replace(' ', '_')
            self._whole[kind] = self.training(kind, name).start().finish()
        return self._whole[kind]


@pytest.fixture(scope='module')
def recipes(tmp_path_factory) -> Recipes:
    return Recipes(tmp_path_factory.mktemp('resume'))


def kill_at_random(training: Training, rng: random.Random) -> None:
    """Between any two instructions, or while a checkpoint is being written."""
    before = len(training.rows())
    if rng.random() < 0.5:
        training.await_rows(before + rng.randrange(1, 12))
        time.sleep(rng.uniform(0, 0.1))
    else:
        training.await_writing(rng.randrange(1, 5))
    training.kill()


def check_killed(recipes: Recipes, kind: str, kills: int, seed: int) -> None:
    whole = recipes.whole(kind)
    killed = recipes.training(kind, f'{whole.work_dir.name}_killed_{seed}')
    rng = random.Random(seed)
    hits = 0
    for _ in range(kills):
        kill_at_random(killed.start('--resume'), rng)
        hits += killed.wait() == [-signal.SIGKILL] * killed.ranks
    # A fast machine may be through before the last one.
    assert hits >= max(1, kills - 1)
    killed.start('--resume').finish()
    assert differences(whole.outcome(), killed.outcome()) == []
    assert killed.checkpoints() == whole.checkpoints()


@pytest.mark.parametrize(
    ('kind', 'kills'), [('one process', 1), pytest.param('two processes', 1, marks=pytest.mark.slow)]
)
def test_a_killed_run_ends_as_if_it_was_never_interrupted(recipes, kind, kills):
    """Weights, optimiser, loss scale, averages, schedules and logged values, bit by bit; the same files are left."""
    check_killed(recipes, kind, kills, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
def test_a_run_that_is_killed_again_and_again_ends_as_if_it_was_never_interrupted(recipes, kind):
    """Five times each, twenty in all."""
    check_killed(recipes, kind, kills=5, seed=1)


def test_a_second_run_in_the_same_folder_is_refused(recipes):
    whole = recipes.whole('one process')
    first = recipes.training('one process', 'held').start()
    first.await_rows(3)
    # It would be through before the second one trains.
    first.signal(signal.SIGSTOP)
    second = Training(first.config, first.work_dir).start('--resume')
    assert second.wait() == [1], second.log.read_text()[-3000:]
    assert f'another run trains in {first.work_dir}: process {first.group} on ' in second.log.read_text()
    first.signal(signal.SIGCONT)
    first.finish()
    assert differences(whole.outcome(), first.outcome()) == []


def test_sigterm_to_a_run_and_its_workers_saves_and_ends_cleanly(recipes):
    whole = recipes.whole('one process')
    warned = recipes.training('one process', 'warned').start()
    warned.await_rows(6)
    # As a scheduler sends it: to all processes of the job.
    warned.signal(signal.SIGTERM)
    assert warned.wait() == [0], warned.log.read_text()[-3000:]
    text = warned.log.read_text()
    assert 'SIGTERM: the run ends after iteration' in text
    assert len(warned.rows()) < len(whole.rows())
    warned.start('--resume').finish()
    assert differences(whole.outcome(), warned.outcome()) == []
    # What was saved in between is gone, since an ordinary checkpoint followed.
    assert warned.checkpoints() == whole.checkpoints()


@pytest.mark.slow
def test_sigterm_to_one_of_two_processes_ends_both(recipes):
    kind = 'two processes'
    warned = recipes.training(kind, 'warned_two', **{'train_cfg.interrupt_interval': 3}).start()
    # The four steps of the first epoch, its validation, and a step of the second.
    warned.await_rows(6)
    os.kill(warned.processes[1].pid, signal.SIGTERM)
    assert warned.wait() == [0, 0], warned.log.read_text()[-3000:]
    # They ask each other every third step, and every third batch of a validation after four.
    name = (warned.work_dir / 'last_checkpoint').read_text()
    step = int(name.rpartition('_')[2].removesuffix('.pth'))
    assert step % 3 == 0 or step % 4 == 0
    assert f'SIGTERM: the run ends after iteration {step}.' in warned.log.read_text()
    assert len(warned.rows()) < len(recipes.whole(kind).rows())
    warned.start('--resume').finish()
    assert differences(recipes.whole(kind).outcome(), warned.outcome()) == []
