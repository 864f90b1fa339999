"""Measures how well a model recognises both images of a mixed one, for several mixing methods.

The validation images of a config are mixed by each method, and classified by the model of a checkpoint. Example:

    python tools/analysis_tools/mixed_accuracy.py configs/smmix/deit-small_smmix_8xb128-300e_in1k.py \\
        work_dirs/deit-small_smmix_8xb128-300e_in1k/epoch_300.pth --methods cutmix smmix
"""

import argparse
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from named_methods import (
    add_arguments,
    build_alone,
    build_loader,
    describe,
    measure_each,
    parse_args,
    preprocess,
    read_config,
    to_table,
)
from torch.utils.data import DataLoader

from smmix_mm.evaluation import pair_hits
from smmix_mm.files import write_whole
from smmix_mm.mixing import step_streams
from smmix_mm.models import MixingClassifier

# Top-2 in per cent on ImageNet: figure 5a of https://arxiv.org/abs/2212.12977.
PUBLISHED = {'cutmix': 23.8, 'smmix': 48.3}


@dataclass(frozen=True)
class Result:
    """How well a model recognises the images that one method mixed.

    Attributes:
        top1: Predictions that are one of the two classes, in per cent of the pairs.
        top2: Predictions whose two best classes are exactly those of the pair.
        top1_error, top2_error: Standard errors over the batches, each of which has its own draws; None for one batch.
        pairs: Mixed images of two classes.
        one_class: Mixed images whose label is of one class, which are left out.
    """

    top1: float
    top2: float
    top1_error: float | None
    top2_error: float | None
    pairs: int
    one_class: int


@torch.no_grad()
def measure(model: MixingClassifier, loader: DataLoader, seed: int) -> Result:
    """Mixes all images of a loader by the model's only method, and classifies them.

    Raises:
        ValueError: If no label is of two classes.
    """
    counts = []
    for step, batch in enumerate(loader):
        images, targets = preprocess(model, batch)
        mixed = model.mix(model.mixing.methods[0], images, targets, step_streams(seed, step))
        # AutoMix adds the unmixed images.
        count = len(targets)
        hits = pair_hits(model(mixed.images[:count]), mixed.targets[:count])
        counts.append([count, *(int(hit.sum()) for hit in hits)])
    images, top1, top2, pairs = (sum(column) for column in zip(*counts, strict=True))
    if not pairs:
        raise ValueError(f'none of the {images} mixed images is of two classes')
    rates = [(100 * first / of, 100 * second / of) for _, first, second, of in counts if of]
    return Result(
        top1=100 * top1 / pairs,
        top2=100 * top2 / pairs,
        top1_error=standard_error([first for first, _ in rates]),
        top2_error=standard_error([second for _, second in rates]),
        pairs=pairs,
        one_class=images - pairs,
    )


def standard_error(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def table(results: Mapping[str, Result]) -> str:
    """Returns a Markdown table with the published figures below those of the model."""
    rows = [
        (
            name,
            with_error(result.top1, result.top1_error),
            with_error(result.top2, result.top2_error),
            str(result.pairs),
            str(result.one_class),
        )
        for name, result in results.items()
    ]
    rows += [(f'{name}, the paper on ImageNet', '', f'{top2}', '', '') for name, top2 in PUBLISHED.items()]
    return to_table(('mixed by', 'top-1 (%)', 'top-2 (%)', 'pairs', 'of one class, left out'), rows)


def with_error(value: float, error: float | None) -> str:
    return f'{value:.1f}' if error is None else f'{value:.1f} ± {error:.1f}'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument('--out', type=Path, help='JSON file; default: mixed_accuracy.json beside the checkpoint')
    args = parse_args(parser)
    out = args.out or Path(args.checkpoint).with_name('mixed_accuracy.json')
    try:
        cfg = read_config(args)
        loader = build_loader(cfg, args)
        # A checkpoint of another model is refused before the first method.
        build_alone(cfg, None, args)
        results, left_out = measure_each(
            {name: lambda name=name: measure(build_alone(cfg, name, args), loader, args.seed) for name in args.methods}
        )
    except (OSError, ValueError) as error:
        raise SystemExit(f'{parser.prog}: {error}') from error
    report = dict(
        **describe(args),
        results={name: asdict(result) for name, result in results.items()},
        left_out=left_out,
        published_top2=PUBLISHED,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, lambda unfinished: unfinished.write_text(json.dumps(report, indent=2)))
    print(f'{table(results)}\n\nwritten to {out}')


if __name__ == '__main__':
    main()
