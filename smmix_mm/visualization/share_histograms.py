"""Histograms of shares."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

BINS = np.linspace(0, 1, 26)
# One row holds so many panels.
COLUMNS = 2


def draw_share_histograms(panels: Mapping[str, Mapping[str, Sequence[float]]], path: str | Path) -> None:
    """Saves one panel of histograms for each group of shares, with a line at the mean of each.

    Args:
        panels (Mapping[str, Mapping[str, Sequence[float]]]): By the title of the panel and the name in its legend,
            shares from 0 to 1, one for each image.
        path (str | Path): Path of the PNG file. Missing folders are created.
    """
    columns = min(len(panels), COLUMNS)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.2 * rows), layout='constrained')
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis, (title, groups) in zip(axes, panels.items(), strict=False):
        for index, (name, shares) in enumerate(groups.items()):
            weights = np.full(len(shares), 100 / len(shares))
            colour = f'C{index}'
            label = f'{name}, mean {np.mean(shares):.2f}'
            axis.hist(shares, BINS, weights=weights, histtype='stepfilled', color=colour, alpha=0.35, label=label)
            axis.axvline(np.mean(shares), color=colour, linestyle='--', linewidth=1)
        axis.set_title(title, fontsize=10)
        axis.set_xlim(0, 1)
        axis.set_xlabel('share')
        axis.set_ylabel('images (%)')
        # Above the highest bar, which the legend would hide.
        axis.set_ylim(top=1.35 * axis.get_ylim()[1])
        axis.legend(loc='upper right', fontsize=8, framealpha=1)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
