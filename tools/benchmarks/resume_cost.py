"""Times exact resume: seeding samples and steps, and writing, reading and checking a checkpoint of DeiT-S's size."""

import argparse
import tempfile
import timeit
from collections.abc import Callable
from pathlib import Path

import torch

from smmix_mm.checkpoint import read_whole
from smmix_mm.files import write_whole
from smmix_mm.streams import sample_stream, seed_globals, seed_step, seeded_globals

# Number of DeiT-S's parameters; AdamW adds two states of each.
PARAMETERS = 22_050_664


def seed_sample_in_main() -> None:
    with seeded_globals(sample_stream(0, 3, 12345)):
        pass


def best_time(call: Callable[[], object], number: int = 1, repeats: int = 5) -> float:
    """Returns the seconds of the fastest call."""
    return min(timeit.repeat(call, number=number, repeat=repeats)) / number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--folder', help='folder for the checkpoint; default: a temporary folder')
    parser.add_argument('--parameters', type=int, default=PARAMETERS, help='number of parameters of the model')
    args = parser.parse_args()
    seeding = {
        'seeding a sample, in a worker': lambda: seed_globals(sample_stream(0, 3, 12345)),
        'seeding a sample, without workers': seed_sample_in_main,
        'seeding a step': lambda: seed_step(0, 3, 1),
    }
    for name, call in seeding.items():
        print(f'{name}: {best_time(call, 200, 20) * 1e3:.3f} ms')
    content = {name: torch.randn(args.parameters) for name in ('state_dict', 'exp_avg', 'exp_avg_sq')}
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder, 'epoch_1.pth')
        plain = best_time(lambda: torch.save(content, path))
        print(f'writing {path.stat().st_size / 1e6:.0f} MB: {plain:.2f} s')
        whole = best_time(lambda: write_whole(path, lambda unfinished: torch.save(content, unfinished)))
        print(f'writing it atomically: {whole:.2f} s')
        print(f'reading it: {best_time(lambda: torch.load(path, weights_only=True)):.2f} s')
        print(f'reading and checking it: {best_time(lambda: read_whole(path)):.2f} s')


if __name__ == '__main__':
    main()
