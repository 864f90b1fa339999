"""Times the mixing operation of SMMix, search and paste, against a plain copy of the batch.

The regions have the smallest, a middle and the largest size that SMMix draws.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from steps import SIDE
from timing import time_interleaved, write_report

from smmix_mm import functional

# Patches of 16 pixels, as in DeiT, and of 32, as in PVT's last stage.
GRIDS = {'14x14': ((3, 3), (7, 7), (10, 10)), '7x7': ((1, 1), (3, 3), (5, 5))}
FORMATS = {'contiguous': torch.contiguous_format, 'channels_last': torch.channels_last}
# Makes a sample long enough for the clock.
IMAGES_PER_SAMPLE = 128
RATIOS = {
    'mixing / copy': lambda t: t['mixing'] / t['copy'],
    'search / copy': lambda t: t['search'] / t['copy'],
}


def time_batch(images: torch.Tensor, grid: str, region: tuple[int, int], rounds: int) -> dict[str, dict[str, float]]:
    """Times one batch; returns the same as :func:`time_interleaved`."""
    sides = tuple(map(int, grid.split('x')))
    attention = torch.rand(len(images), *sides, device=images.device)
    repeats = max(1, IMAGES_PER_SAMPLE // len(images))
    runs: dict[str, Callable[[], Any]] = {
        'copy': images.clone,
        'search': lambda: functional.max_min_corners(attention, region),
        'mixing': lambda: functional.max_min_mix(images, attention, region),
    }
    return time_interleaved({name: (run, repeats) for name, run in runs.items()}, RATIOS, rounds, images.device, False)


def time_all(args: argparse.Namespace) -> dict[str, dict[str, dict[str, float]]]:
    """Times all combinations; returns results by a name made of dtype, format, batch, grid and region."""
    results = {}
    print('| dtype | memory format | batch | copy (ms) | ' + ' | '.join(f'{grid} tokens' for grid in GRIDS) + ' |')
    print('| :-- | :-- | --: | --: | ' + '--: | ' * len(GRIDS))
    for dtype in args.dtypes:
        for name, memory_format in FORMATS.items():
            for batch_size in args.batch_sizes:
                torch.manual_seed(0)
                images = torch.randn(batch_size, 3, SIDE, SIDE, device=args.device)
                images = images.to(getattr(torch, dtype)).contiguous(memory_format=memory_format)
                cells, copies = [], []
                for grid, regions in GRIDS.items():
                    found = [time_batch(images, grid, region, args.rounds) for region in regions]
                    keys = [f'{dtype}, {name}, {batch_size}, {grid}, {rows}x{cols}' for rows, cols in regions]
                    results |= dict(zip(keys, found, strict=True))
                    cells.append(' / '.join(f'{result["ratios"]["mixing / copy"]:.2f}' for result in found))
                    copies += [result['seconds']['copy'] for result in found]
                milliseconds = 1000 * sorted(copies)[len(copies) // 2]
                row = (dtype, name, str(batch_size), f'{milliseconds:.2f}', *cells)
                print(f'| {" | ".join(row)} |', flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--batch-sizes', nargs='+', type=int, default=[16, 32, 64, 128, 256])
    parser.add_argument(
        '--dtypes', nargs='+', default=['float32', 'float16'], choices=['float32', 'float16', 'bfloat16']
    )
    parser.add_argument('--rounds', type=int, default=9)
    parser.add_argument('--threads', type=int, help="number of CPU threads; default: torch's own")
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/benchmarks/mixing_copy.json'))
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    print(f'{args.device}, {torch.get_num_threads()} threads, {args.rounds} rounds')
    results = time_all(args)
    write_report(args.out, args, results)


if __name__ == '__main__':
    main()
