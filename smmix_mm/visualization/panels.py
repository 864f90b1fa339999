"""Figures made of panels: pictures with scores over them, boxes, titles and captions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from smmix_mm.functional import Box

COLOURS = colormaps['viridis']
# Inches of a panel and of a line of text, and points of the text.
PANEL, LINE, TEXT = 1.8, 0.17, 9
MIN_DPI = 120
# Characters of a class name that fit below a panel with its share.
NAME_LENGTH = 20


@dataclass(frozen=True)
class Panel:
    """One picture of a figure.

    Attributes:
        pixels: ``(H, W, 3)``, RGB from 0 to 1.
        title: Above it.
        caption: Below it.
        boxes: Boxes in pixels (top, left, bottom, right), drawn around their pixels, with their colours.
    """

    pixels: np.ndarray
    title: str = ''
    caption: str = ''
    boxes: Sequence[tuple[Box, str]] = ()


def draw_panels(rows: Sequence[Sequence[Panel]], title: str = '', scale: str = '') -> Figure:
    """Draws panels in rows.

    Args:
        rows (Sequence[Sequence[Panel]]): Rows of panels of about the same size.
        title (str): Above all. Defaults to none.
        scale (str): What the colours over the pictures show; then there is a colour bar. Defaults to none.
    """
    count = max(len(row) for row in rows)
    heights = [_height(row) for row in rows]
    figure = Figure(
        figsize=(PANEL * count + (0.7 if scale else 0), sum(heights) + LINE * (1 + title.count('\n')) + 0.2),
        dpi=max(MIN_DPI, max(max(panel.pixels.shape[:2]) for row in rows for panel in row) / (0.8 * PANEL)),
        layout='constrained',
    )
    FigureCanvasAgg(figure)
    # Names of classes and files may have dollar signs.
    text = dict(fontsize=TEXT, parse_math=False)
    axes = figure.subplots(len(rows), count, squeeze=False, gridspec_kw=dict(height_ratios=heights))
    for row, line in zip(rows, axes, strict=True):
        for axis in line[len(row) :]:
            axis.remove()
        for panel, axis in zip(row, line[: len(row)], strict=True):
            # Exact pixels; smoothing would also make the file four times as large.
            axis.imshow((panel.pixels * 255).round().astype(np.uint8), interpolation='nearest')
            axis.set(xticks=[], yticks=[])
            # They would cover the pixels at the edges.
            axis.spines[:].set_visible(False)
            axis.set_title(panel.title, **text)
            axis.set_xlabel(panel.caption, **text)
            for (top, left, bottom, right), colour in panel.boxes:
                corner = (left - 0.5, top - 0.5)
                outline = dict(fill=False, edgecolor=colour, linewidth=2, clip_on=False)
                axis.add_patch(Rectangle(corner, right - left, bottom - top, **outline))
    if title:
        figure.suptitle(title, fontsize=TEXT + 1, parse_math=False)
    if scale:
        shown = [axis for axis in axes.flat if axis.figure]
        bar = figure.colorbar(
            ScalarMappable(Normalize(0, 1), COLOURS), ax=shown, fraction=0.05, pad=0.02, aspect=15 * len(rows)
        )
        bar.set_ticks([0, 1], labels=['lowest', 'highest'], fontsize=TEXT)
        bar.set_label(f'{scale} of each picture', fontsize=TEXT, labelpad=-25)
    return figure


def save_figure(figure: Figure, path: str | Path) -> None:
    """Saves a figure of :func:`draw_panels` with its own resolution; missing folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=figure.dpi)


def to_array(figure: Figure) -> np.ndarray:
    """Returns a figure's pixels ``(H, W, 3)``, RGB of 8 bits."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def to_pictures(preprocessor: nn.Module, images: Tensor) -> np.ndarray:
    """Undoes the preprocessing of images.

    Args:
        preprocessor (nn.Module): The ``data_preprocessor`` of a classifier.
        images (Tensor): ``(B, 3, H, W)``, as it puts them out.

    Returns:
        np.ndarray: ``(B, H, W, 3)``, RGB from 0 to 1.

    Raises:
        ValueError: As :func:`check_normalisation`.
    """
    check_normalisation(preprocessor)
    pixels = images.detach().float().cpu() * preprocessor.std.cpu() + preprocessor.mean.cpu()
    # OpenMMLab's pipelines put out BGR.
    pixels = pixels if preprocessor.to_rgb else pixels.flip(1)
    return (pixels / 255).clamp(0, 1).permute(0, 2, 3, 1).numpy()


def check_normalisation(preprocessor: nn.Module) -> None:
    """Refuses a ``data_preprocessor`` whose images :func:`to_pictures` cannot turn into pictures.

    Raises:
        ValueError: If it has no mean and std.
    """
    if not getattr(preprocessor, '_enable_normalize', False):
        raise ValueError(
            'pictures need a model whose data_preprocessor has mean and std, but it has none: images would not be '
            'normalised as in training. Build the model with smmix_mm.engine.build_model(cfg)'
        )


def overlay(pictures: np.ndarray, scores: Tensor) -> np.ndarray:
    """Lays scores over pictures, in colours from each picture's lowest score to its highest.

    Args:
        pictures (np.ndarray): ``(B, H, W, 3)``, from 0 to 1.
        scores (Tensor): ``(B, h, w)``.
    """
    scores = scores.detach().float().cpu()
    low, high = scores.flatten(1).aminmax(dim=1)
    scaled = (scores - low[:, None, None]) / (high - low).clamp(min=1e-12)[:, None, None]
    enlarged = F.interpolate(scaled[:, None], size=pictures.shape[1:3])[:, 0]
    return 0.6 * COLOURS(enlarged.numpy())[..., :3] + 0.4 * pictures


def shorten_name(name: str) -> str:
    """Shortens a class name such as ImageNet's ``'tench, Tinca tinca'`` to what fits below a picture."""
    name = str(name).partition(',')[0]
    return name if len(name) <= NAME_LENGTH else f'{name[: NAME_LENGTH - 1]}…'


def describe_shares(names: Sequence[str], shares: Sequence[float]) -> str:
    """Describes a mixed label, one class a line, the largest share first.

    Args:
        names (Sequence[str]): A class name for each share; shares of equal names are added.
        shares (Sequence[float]): Those that round to 0.00 are left out.
    """
    total: dict[str, float] = {}
    for name, share in zip(names, shares, strict=True):
        total[name] = total.get(name, 0.0) + float(share)
    shown = sorted(((share, name) for name, share in total.items() if abs(share) >= 0.005), reverse=True)
    return '\n'.join(f'{shorten_name(name)}: {share:.2f}' for share, name in shown)


def _height(row: Sequence[Panel]) -> float:
    """Inches of a row."""
    lines = [sum(1 + text.count('\n') for text in (panel.title, panel.caption) if text) for panel in row]
    sides = [panel.pixels.shape[0] / panel.pixels.shape[1] for panel in row]
    return PANEL * max(sides) + LINE * max(lines)
